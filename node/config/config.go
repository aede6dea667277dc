package config

import (
	"log/slog"
	"net/netip"
	"os"

	"github.com/clsync/clsync/signature/rules"
)

// DefaultPath is where the configuration is looked for when none is named.
const DefaultPath = "/etc/clsync/clsync.toml"

// GossipPort and Port are the defaults of gossip and of sessions.
const (
	Port       = 7370
	GossipPort = 7371
)

// A Config is what one file says, with every default filled in. It is not
// changed after Load; a reload makes a new one.
type Config struct {
	File string // where it was read from

	Name      string     // what people call this node
	Cluster   string     // the same on all nodes
	KeyFile   string     // the cluster's secret keys
	StateDir  string     // index, node key
	RunDir    string     // control socket
	Listen    string     // sessions
	Advertise string     // where peers reach us; empty: found out
	Rsync     string     // program
	Jail      Jail       // of the receiving rsync
	Metrics   string     // loopback address; empty: on the socket only
	LogFormat string     // text or json
	LogLevel  slog.Level // the least that is logged
	Operators string     // group that may ask for status; empty: root only

	Gossip    Gossip
	Multicast Multicast
	Trees     []Tree
}

// Gossip is who is there.
type Gossip struct {
	Listen string
	Seeds  []string       // host:port, port always filled in
	CIDRs  []netip.Prefix // who may gossip; none: anybody with the key
	Fast   bool           // LAN timing: failures are noticed sooner
}

// Multicast is how nodes find each other without seeds.
type Multicast struct {
	Enabled    bool
	Group      string
	Interfaces []string // none: all that can
}

// A Tree is one replicated folder.
type Tree struct {
	Name    string
	Path    string // absolute and clean
	Monitor Monitor
	Ignore  []string
	Only    []string
	Rules   *rules.Rules // compiled from Ignore and Only

	Delay        Duration // how long changes are gathered; 0: the first goes at once
	BigSize      Size     // from this size on BigDelay counts
	BigDelay     Duration
	ScanInterval Duration // of the scan that finds what no event told
	ReceiveOnly  bool     // local changes are kept and reported, never sent
	SELinux      bool     // replicate security.selinux too
}

// Jail says whether the receiving rsync must be jailed.
type Jail string

const (
	JailAuto    Jail = "auto" // where the privileges are there
	JailOff     Jail = "off"
	JailRequire Jail = "require"
)

// Monitor names a backend.
type Monitor string

const (
	MonitorAuto     Monitor = "auto"
	MonitorFanotify Monitor = "fanotify"
	MonitorFsnotify Monitor = "fsnotify"
)

// Socket is where the daemon answers questions about itself.
func (c *Config) Socket() string { return c.RunDir + "/" + SocketName }

// NodeKey is where the node's own key is kept.
func (c *Config) NodeKey() string { return c.StateDir + "/node.key" }

// SocketName is the control socket's name in the run folder.
const SocketName = "control.sock"

// Tree returns the tree with that name.
func (c *Config) Tree(name string) (Tree, bool) {
	for _, t := range c.Trees {
		if t.Name == name {
			return t, true
		}
	}
	return Tree{}, false
}

// Load reads and checks a file. The error is of type Errors unless the file could
// not be read.
func Load(file string) (*Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return Parse(file, string(text))
}
