package cluster

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Options say what cluster a test wants. The zero value is two nodes, each with
// a tree on a tmpfs, that find each other by seeds.
type Options struct {
	Nodes     int
	Monitor   string // "fanotify" or "fsnotify"; empty: the daemon chooses
	FS        FS     // of the trees; empty: Tmpfs
	DiskSize  int64  // of that file system; 0: 1 GiB
	NoSeeds   bool   // no seed addresses
	Multicast bool
	Race      bool // a daemon built with the race detector

	// Jail is passed on as it is; empty: the daemon chooses.
	Jail string

	// TreeIsMount puts the tree's root at the mount point itself; otherwise it is
	// a folder on it, and what is beside it is on the same file system.
	TreeIsMount bool

	// Config are lines for the top of the configuration, TreeConfig for its tree.
	Config, TreeConfig string

	// Prepare fills a node's tree before the daemon starts.
	Prepare func(n *Node) error

	// Stopped leaves the daemons to be started by the test.
	Stopped bool
}

func (o Options) filled() Options {
	if o.Nodes == 0 {
		o.Nodes = 2
	}
	if o.FS == "" {
		o.FS = Tmpfs
	}
	if o.DiskSize == 0 {
		o.DiskSize = 1 << 30
	}
	return o
}

const (
	sessionPort = 7370
	gossipPort  = 7371
	treeName    = "data"
	clusterName = "test"
)

// config is the whole configuration file of n.
func (c *Cluster) config(n *Node) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("name = %q", n.Name)
	line("cluster = %q", clusterName)
	line("key_file = %q", filepath.Join(n.Dir, "cluster.key"))
	line("state_dir = %q", filepath.Join(n.Dir, "state"))
	line("run_dir = %q", n.runDir())
	line("listen = \"%s:%d\"", n.Addr, sessionPort)
	if c.options.Jail != "" {
		line("jail = %q", c.options.Jail)
	}
	b.WriteString(c.options.Config)

	line("\n[gossip]\nlisten = \"%s:%d\"\nfast = true", n.Addr, gossipPort)
	if !c.options.NoSeeds {
		var seeds []string
		for _, o := range c.Nodes {
			if o != n {
				seeds = append(seeds, fmt.Sprintf("\"%s:%d\"", o.Addr, gossipPort))
			}
		}
		line("seeds = [%s]", strings.Join(seeds, ", "))
	}
	line("\n[multicast]\nenabled = %v", c.options.Multicast)
	if c.options.Multicast {
		line("interfaces = [\"eth0\"]")
	}
	line("\n[[tree]]\nname = %q\npath = %q", treeName, n.Tree())
	if c.options.Monitor != "" {
		line("monitor = %q", c.options.Monitor)
	}
	b.WriteString(c.options.TreeConfig)
	return b.String()
}
