package control

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// collector turns one Status into metrics at every scrape, so that there is one
// set of numbers and not two. Labels are trees and peers, never paths.
type collector struct{ engine Engine }

func registry(engine Engine) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collector{engine}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("clsync_"+name, help, labels, nil)
}

var (
	descUp        = desc("up", "1 if the node's loops answer.")
	descInfo      = desc("build_info", "1, with the version as label.", "version")
	descUptime    = desc("uptime_seconds", "Time since the daemon started.")
	descProblems  = desc("problems", "Problems that clsync status lists.")
	descRefused   = desc("refused_peers", "Peers that were turned away.")
	descConnected = desc("peer_connected", "1 if there is a session with the peer.", "peer")
	descLagRec    = desc("peer_lag_records", "Records that the peer has not landed.", "tree", "peer")
	descLagBytes  = desc("peer_lag_bytes", "Content bytes that the peer has not landed.", "tree", "peer")
	descLagSec    = desc("peer_lag_seconds", "Age of the oldest change that the peer has not landed.", "tree", "peer")
)

// gauges and counters of a tree.
var (
	treeGauges = []struct {
		desc *prometheus.Desc
		of   func(Tree) float64
	}{
		{desc("tree_running", "1 if the tree runs.", "tree"), func(t Tree) float64 { return flag(t.State == Running) }},
		{desc("tree_files", "Paths of every type.", "tree"), func(t Tree) float64 { return float64(t.Files) }},
		{desc("tree_pending", "Paths wanted here and not landed.", "tree"), func(t Tree) float64 { return float64(t.Pending) }},
		{desc("tree_pending_bytes", "Content bytes wanted here and not landed.", "tree"), func(t Tree) float64 { return float64(t.PendingBytes) }},
		{desc("tree_blocked", "Paths that cannot land here.", "tree"), func(t Tree) float64 { return float64(len(t.Blocked)) }},
		{desc("tree_unreadable", "Paths that cannot be looked at.", "tree"), func(t Tree) float64 { return float64(len(t.Unreadable)) }},
		{desc("tree_busy", "Paths that are being written.", "tree"), func(t Tree) float64 { return float64(t.Busy) }},
		{desc("tree_busy_seconds", "Age of the oldest busy path.", "tree"), func(t Tree) float64 { return t.BusySeconds }},
		{desc("tree_conflicts", "States kept in the conflict store.", "tree"), func(t Tree) float64 { return float64(t.Conflicts) }},
		{desc("tree_queue", "Hints not yet looked at.", "tree"), func(t Tree) float64 { return float64(t.Queue) }},
	}
	treeCounters = []struct {
		desc *prometheus.Desc
		of   func(Counters) int64
	}{
		{desc("versions_made_total", "Versions of local changes, folders' times apart.", "tree"), func(c Counters) int64 { return c.VersionsMade }},
		{desc("folder_versions_made_total", "Versions of folders whose time moved.", "tree"), func(c Counters) int64 { return c.FolderVersionsMade }},
		{desc("records_applied_total", "Records of other nodes applied here.", "tree"), func(c Counters) int64 { return c.RecordsApplied }},
		{desc("records_sent_total", "Records sent to peers.", "tree"), func(c Counters) int64 { return c.RecordsSent }},
		{desc("records_received_total", "Records received from peers.", "tree"), func(c Counters) int64 { return c.RecordsReceived }},
		{desc("contents_sent_total", "Contents sent to peers.", "tree"), func(c Counters) int64 { return c.ContentsSent }},
		{desc("contents_received_total", "Contents received from peers.", "tree"), func(c Counters) int64 { return c.ContentsReceived }},
		{desc("sent_bytes_total", "Bytes sent to peers.", "tree"), func(c Counters) int64 { return c.BytesSent }},
		{desc("received_bytes_total", "Bytes received from peers.", "tree"), func(c Counters) int64 { return c.BytesReceived }},
		{desc("rsync_runs_total", "Times rsync was started.", "tree"), func(c Counters) int64 { return c.RsyncRuns }},
		{desc("echoes_total", "Versions made of our own applies; must stay 0.", "tree"), func(c Counters) int64 { return c.Echoes }},
		{desc("echoes_suppressed_total", "Events of our own applies that made no version.", "tree"), func(c Counters) int64 { return c.EchoesSuppressed }},
		{desc("looks_total", "Looks at single paths.", "tree"), func(c Counters) int64 { return c.Looks }},
		{desc("applies_total", "Paths changed on disk by clsync.", "tree"), func(c Counters) int64 { return c.Applies }},
		{desc("conflicts_made_total", "Conflicts found.", "tree"), func(c Counters) int64 { return c.ConflictsMade }},
		{desc("overflows_total", "Times events were lost and a scan was made instead.", "tree"), func(c Counters) int64 { return c.Overflows }},
		{desc("scans_total", "Scans of a whole tree or folder.", "tree"), func(c Counters) int64 { return c.Scans }},
	}
)

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descUp, descInfo, descUptime, descProblems, descRefused, descConnected, descLagRec, descLagBytes, descLagSec} {
		ch <- d
	}
	for _, g := range treeGauges {
		ch <- g.desc
	}
	for _, g := range treeCounters {
		ch <- g.desc
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s, err := c.engine.Status(ctx)
	if err != nil { // the scrape itself works: up says 0
		gauge(descUp, 0)
		return
	}
	s.Judge(time.Now())
	s.Escape() // a label must be UTF-8
	gauge(descUp, 1)
	gauge(descInfo, 1, s.Node.Version)
	gauge(descUptime, float64(s.Node.UptimeSeconds))
	gauge(descProblems, float64(len(s.Problems)))
	gauge(descRefused, float64(len(s.Refused)))
	for _, p := range s.Peers {
		gauge(descConnected, flag(p.Connected), p.Name)
	}
	for _, t := range s.Trees {
		for _, g := range treeGauges {
			gauge(g.desc, g.of(t), t.Name)
		}
		for _, g := range treeCounters {
			ch <- prometheus.MustNewConstMetric(g.desc, prometheus.CounterValue, float64(g.of(t.Counters)), t.Name)
		}
		for _, l := range t.Peers {
			gauge(descLagRec, float64(l.Records), t.Name, l.Name)
			gauge(descLagBytes, float64(l.Bytes), t.Name, l.Name)
			gauge(descLagSec, l.Seconds, t.Name, l.Name)
		}
	}
}
