package config

import (
	"fmt"
	"time"
)

// An option is one key of the file: where its value goes, what it may be, and
// what people are told about it.
type option[T any] struct {
	key   string
	def   string // the default as it would stand in the file; empty: none
	show  string // what init writes instead of the default
	live  bool   // a reload may change it
	doc   string
	at    func(*T) any // pointer to the field
	check func(*T) error
}

var nodeOptions = []option[Config]{
	{key: "name", show: `"HOSTNAME"`, doc: "What people call this node. Unique in the cluster. Default: the host name.",
		at: func(c *Config) any { return &c.Name }, check: func(c *Config) error { return checkName(c.Name) }},
	{key: "cluster", def: `"clsync"`, doc: "The cluster's name, the same on all nodes.",
		at: func(c *Config) any { return &c.Cluster }, check: func(c *Config) error { return checkName(c.Cluster) }},
	{key: "key_file", def: `"/etc/clsync/cluster.key"`, live: true, doc: "The cluster key, the same on all nodes. Readable by its owner only.",
		at: func(c *Config) any { return &c.KeyFile }, check: func(c *Config) error { return checkPath(c.KeyFile) }},
	{key: "state_dir", def: `"/var/lib/clsync"`, doc: "Index and node key. Keep it: without it the node has to join anew.",
		at: func(c *Config) any { return &c.StateDir }, check: func(c *Config) error { return checkPath(c.StateDir) }},
	{key: "run_dir", def: `"/run/clsync"`, doc: "Holds the control socket.",
		at: func(c *Config) any { return &c.RunDir }, check: func(c *Config) error { return checkRunDir(c) }},
	{key: "listen", def: `"[::]:7370"`, doc: "Where peers reach this node (TCP).",
		at: func(c *Config) any { return &c.Listen }, check: func(c *Config) error { return checkListen(c.Listen) }},
	{key: "advertise", show: `"192.0.2.1:7370"`, doc: "What peers are told to dial. Default: found out.",
		at: func(c *Config) any { return &c.Advertise }, check: func(c *Config) error { return checkAdvertise(c.Advertise) }},
	{key: "rsync", def: `"rsync"`, doc: "The rsync program, version 3.5.0 or later.",
		at: func(c *Config) any { return &c.Rsync }, check: func(c *Config) error { return checkProgram(c.Rsync) }},
	{key: "jail", def: `"auto"`, doc: `Jail the receiving rsync: "auto" (where the privileges are there), "require", "off".`,
		at: func(c *Config) any { return &c.Jail }, check: func(c *Config) error {
			return oneOf(string(c.Jail), string(JailAuto), string(JailOff), string(JailRequire))
		}},
	{key: "metrics", show: `"127.0.0.1:7379"`, doc: "Serve Prometheus metrics on this loopback address too. Default: on the control socket only.",
		at: func(c *Config) any { return &c.Metrics }, check: func(c *Config) error { return checkLoopback(c.Metrics) }},
	{key: "log_format", def: `"text"`, doc: `"text" or "json", on standard error.`,
		at: func(c *Config) any { return &c.LogFormat }, check: func(c *Config) error { return oneOf(c.LogFormat, "text", "json") }},
	{key: "log_level", def: `"info"`, live: true, doc: `"debug", "info", "warn" or "error".`,
		at: func(c *Config) any { return &c.LogLevel }},
	{key: "operators", show: `"adm"`, doc: "Group that may ask for status, conflicts and metrics. Only root may change anything. Default: root only.",
		at: func(c *Config) any { return &c.Operators }, check: func(c *Config) error { return checkGroup(c.Operators) }},
}

var gossipOptions = []option[Gossip]{
	{key: "listen", def: `":7371"`, doc: "Where gossip is heard (UDP and TCP).",
		at: func(g *Gossip) any { return &g.Listen }, check: func(g *Gossip) error { return checkListen(g.Listen) }},
	{key: "seeds", show: `["192.0.2.2", "192.0.2.3:7371"]`, live: true, doc: "Some other nodes, to find the rest through. One that answers is enough. Not needed where multicast reaches.",
		at: func(g *Gossip) any { return &g.Seeds }, check: func(g *Gossip) error { return fillSeeds(g) }},
	{key: "cidrs", show: `["192.0.2.0/24"]`, doc: "Networks that may gossip. Default: any host that has the key.",
		at: func(g *Gossip) any { return &g.CIDRs }},
	{key: "fast", def: `false`, doc: "Notice dead nodes sooner, on a quiet and fast network.",
		at: func(g *Gossip) any { return &g.Fast }},
}

var multicastOptions = []option[Multicast]{
	{key: "enabled", def: `true`, doc: "Find nodes on the same network without seeds, and hint at changes.",
		at: func(m *Multicast) any { return &m.Enabled }},
	{key: "group", def: `"239.255.73.70:7372"`, doc: "Multicast group and port, the same on all nodes.",
		at: func(m *Multicast) any { return &m.Group }, check: func(m *Multicast) error { return checkMulticast(m.Group) }},
	{key: "interfaces", show: `["eth0"]`, doc: "Interfaces to use. Default: all that can.",
		at: func(m *Multicast) any { return &m.Interfaces }, check: func(m *Multicast) error { return checkInterfaces(m.Interfaces) }},
}

var treeOptions = []option[Tree]{
	{key: "name", show: `"www"`, doc: "The tree's name, the same on all nodes.",
		at: func(t *Tree) any { return &t.Name }, check: func(t *Tree) error { return checkName(t.Name) }},
	{key: "path", show: `"/srv/www"`, doc: "The folder, absolute; it must exist. It may differ from node to node.",
		at: func(t *Tree) any { return &t.Path }, check: func(t *Tree) error { return checkPath(t.Path) }},
	{key: "monitor", def: `"auto"`, doc: `How changes are noticed: "auto" (fanotify, else fsnotify), "fanotify", "fsnotify".`,
		at: func(t *Tree) any { return &t.Monitor }, check: func(t *Tree) error {
			return oneOf(string(t.Monitor), string(MonitorAuto), string(MonitorFanotify), string(MonitorFsnotify))
		}},
	{key: "ignore", def: `[]`, show: `["*.tmp", "/cache/"]`, live: true, doc: "What is left out, as in a .gitignore. The same on all nodes.",
		at: func(t *Tree) any { return &t.Ignore }},
	{key: "only", def: `[]`, show: `["passwd", "shadow", "ssh/*.conf"]`, live: true, doc: "Replicate nothing but these, counted from the tree's top, and the folders that lead to them.",
		at: func(t *Tree) any { return &t.Only }},
	{key: "delay", def: `"0s"`, live: true, doc: "Gather changes this long. 0: the first after a quiet moment goes at once.",
		at: func(t *Tree) any { return &t.Delay }, check: func(t *Tree) error { return between(t.Delay, 0, time.Hour) }},
	{key: "big_size", def: `"128MiB"`, live: true, doc: "Files from this size on wait for big_delay instead.",
		at: func(t *Tree) any { return &t.BigSize }},
	{key: "big_delay", def: `"10s"`, live: true, doc: "How long a big file must be left alone before it goes.",
		at: func(t *Tree) any { return &t.BigDelay }, check: func(t *Tree) error { return between(t.BigDelay, 0, 24*time.Hour) }},
	{key: "receive_only", def: `false`, doc: "Take changes and send none: a backup node. Local changes are reported and kept.",
		at: func(t *Tree) any { return &t.ReceiveOnly }},
	{key: "scan_interval", def: `"10m"`, live: true, doc: "How often the whole tree is looked over for what no event told.",
		at: func(t *Tree) any { return &t.ScanInterval }, check: func(t *Tree) error { return between(t.ScanInterval, time.Second, 30*24*time.Hour) }},
	{key: "selinux", def: `false`, doc: "Replicate security.selinux labels too. Only where all nodes have the same policy.",
		at: func(t *Tree) any { return &t.SELinux }},
}

func between(d Duration, lo, hi time.Duration) error {
	if time.Duration(d) < lo || time.Duration(d) > hi {
		return fmt.Errorf("%s is not between %s and %s", d, Duration(lo), Duration(hi))
	}
	return nil
}
