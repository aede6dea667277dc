package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/clsync/clsync/node/control"
)

// statusText is the status for somebody who was woken by it: what is wrong and
// what to do stands first, everything else is below.
func statusText(s control.Status) string {
	var b strings.Builder
	switch n := len(s.Problems); n {
	case 0:
		fmt.Fprintf(&b, "Node %s is well.\n", s.Node.Name)
	case 1:
		fmt.Fprintf(&b, "Node %s has 1 problem:\n", s.Node.Name)
	default:
		fmt.Fprintf(&b, "Node %s has %d problems:\n", s.Node.Name, n)
	}
	for _, p := range s.Problems {
		for i, line := range wrap(terminal(p)+".", 92) {
			mark := "    "
			if i == 0 {
				mark = "\n  * "
			}
			fmt.Fprintf(&b, "%s%s\n", mark, line)
		}
	}
	if n := kept(s); n > 0 {
		fmt.Fprintf(&b, "\nKept from conflicts: %d. To see them: clsync conflicts list\n", n)
	}
	fmt.Fprintf(&b, "\n%s of cluster %s, clsync %s, up %s, listens on %s, rsync %s, jail %s\n",
		s.Node.Name, s.Node.Cluster, s.Node.Version, ago(time.Duration(s.Node.UptimeSeconds)*time.Second),
		s.Node.Listen, or(s.Node.Rsync, "unknown"), or(s.Node.Jail, "unknown"))
	peerTable(&b, s)
	treeTable(&b, s)
	lagTable(&b, s)
	notes(&b, s)
	return b.String()
}

func kept(s control.Status) (n int64) {
	for _, t := range s.Trees {
		n += t.Conflicts
	}
	return n
}

// table writes rows whose cells are divided by tabs.
func table(b *strings.Builder, head string, rows []string) {
	if len(rows) == 0 {
		return
	}
	b.WriteByte('\n')
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, row := range append([]string{head}, rows...) {
		fmt.Fprintln(w, row) // into memory
	}
	if err := w.Flush(); err != nil {
		panic("write into memory: " + err.Error())
	}
}

func peerTable(b *strings.Builder, s control.Status) {
	var rows []string
	for _, p := range s.Peers {
		state := "NOT CONNECTED"
		if p.Connected {
			state = "connected"
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s", p.Name, state, sinceText(s.Time, p.Since), p.Addr))
	}
	table(b, "PEER\tSTATE\tFOR\tADDRESS", rows)
}

func treeTable(b *strings.Builder, s control.Status) {
	var rows []string
	for _, t := range s.Trees {
		state := string(t.State)
		if t.State == control.Stopped {
			state = "STOPPED"
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%d\t%s\t%d\t%d\t%d\t%s\t%s", t.Name, state, t.Files,
			amount(t.Pending, t.PendingBytes), len(t.Blocked), t.Busy, t.Queue, or(t.Backend, "-"), t.Path))
	}
	table(b, "TREE\tSTATE\tPATHS\tPENDING\tBLOCKED\tBUSY\tQUEUE\tMONITOR\tFOLDER", rows)
}

func lagTable(b *strings.Builder, s control.Status) {
	var rows []string
	for _, t := range s.Trees {
		for _, l := range t.Peers {
			behind := "nothing"
			if l.Records > 0 || l.Bytes > 0 {
				behind = fmt.Sprintf("%s for %s", amount(l.Records, l.Bytes), ago(time.Duration(l.Seconds*float64(time.Second))))
			}
			if !l.Connected {
				behind += ", not connected"
			}
			rows = append(rows, fmt.Sprintf("%s\t%s\t%s", t.Name, l.Name, behind))
		}
	}
	table(b, "TREE\tPEER\tLACKS", rows)
}

// most is how many paths are named; the rest is in --json.
const most = 10

// notes are the paths that something is the matter with.
func notes(b *strings.Builder, s control.Status) {
	for _, t := range s.Trees {
		for _, list := range []struct {
			what  string
			paths []control.PathNote
		}{{"cannot land", t.Blocked}, {"cannot be read", t.Unreadable}, {"changed here, kept and not sent (receive-only)", t.LocalPaths}, {"landed without some attributes", t.Lacking}} {
			if len(list.paths) == 0 {
				continue
			}
			fmt.Fprintf(b, "\nTree %s, %s:\n", t.Name, list.what)
			for i, p := range list.paths {
				if i == most {
					fmt.Fprintf(b, "  and %d more; see: clsync status --json\n", len(list.paths)-most)
					break
				}
				if p.Since.IsZero() {
					fmt.Fprintf(b, "  %s\n", p.Path)
					continue
				}
				fmt.Fprintf(b, "  %s: %s (for %s)\n", p.Path, p.Reason, sinceText(s.Time, p.Since))
			}
		}
		if t.BackendReason != "" {
			fmt.Fprintf(b, "\nTree %s is watched by %s: %s\n", t.Name, t.Backend, t.BackendReason)
		}
	}
}

func amount(n, bytes int64) string {
	if bytes == 0 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d (%s)", n, bytesText(bytes))
}

func sinceText(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return ago(max(0, now.Sub(t)))
}

func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}
