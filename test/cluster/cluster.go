package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A Cluster is some daemons on one network. It ends with its test.
type Cluster struct {
	Nodes []*Node
	Net   *Network

	t       testing.TB
	options Options
	dir     string
	binary  string
}

// New makes the cluster and starts its daemons; they have joined when they are
// seen as connected, which is for the test to wait for (see WaitConnected).
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	o = o.filled()
	Need(t, o.FS.tools()...)
	c := &Cluster{t: t, options: o, binary: Binary(t, o.Race)}
	// Not t.TempDir: a socket's address has room for 108 bytes.
	var err error
	if c.dir, err = os.MkdirTemp("", prefix); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	if c.Net, err = NewNetwork(o.Nodes); err != nil {
		t.Fatal(err)
	}
	for i := range o.Nodes {
		name := string(rune('a' + i))
		c.Nodes = append(c.Nodes, &Node{Name: name, Dir: filepath.Join(c.dir, name), Addr: c.Net.Addr(i), index: i, c: c})
	}
	key, err := exec.Command(c.binary, "keygen").Output()
	if err != nil {
		t.Fatalf("clsync keygen: %v", stderrOf(err))
	}
	for _, n := range c.Nodes {
		if err := n.make(key); err != nil {
			t.Fatalf("make node %s: %v", n.Name, err)
		}
	}
	if !o.Stopped {
		for _, n := range c.Nodes {
			n.Start()
		}
	}
	return c
}

// close stops what runs, says what went wrong, and removes everything.
func (c *Cluster) close() {
	keep := os.Getenv("CLSYNC_TEST_KEEP") != ""
	for _, n := range c.Nodes {
		if p := n.process(); p != nil {
			n.Cont()
			if keep && c.t.Failed() {
				p.dump()
			}
			p.kill()
		}
	}
	for _, n := range c.Nodes {
		n.examine()
	}
	if c.t.Failed() {
		for _, n := range c.Nodes {
			c.t.Logf("the end of %s's log:\n%s", n.Name, n.LogTail(60))
		}
	}
	for _, n := range c.Nodes {
		if n.Disk != nil {
			if err := n.Disk.Unmount(); err != nil && !n.unmounted {
				c.t.Errorf("unmount: %v", err)
			}
		}
	}
	if c.Net != nil {
		if err := c.Net.Close(); err != nil {
			c.t.Errorf("remove network: %v", err)
		}
	}
	if keep {
		c.t.Logf("kept, with all goroutines at the end of the logs: %s", c.dir)
		return
	}
	if err := os.RemoveAll(c.dir); err != nil {
		c.t.Errorf("clean up: %v", err)
	}
}

// Partition cuts the network into groups, by the nodes' indexes.
func (c *Cluster) Partition(groups ...[]int) {
	c.t.Helper()
	c.t.Logf("partition %v", groups)
	if err := c.Net.Partition(groups...); err != nil {
		c.t.Fatal(err)
	}
}

// Heal undoes every Partition and Unplug.
func (c *Cluster) Heal() {
	c.t.Helper()
	c.t.Log("heal")
	if err := c.Net.Heal(); err != nil {
		c.t.Fatal(err)
	}
}

// Unplug takes a node's link down.
func (c *Cluster) Unplug(i int) {
	c.t.Helper()
	if err := c.Net.Unplug(i); err != nil {
		c.t.Fatal(err)
	}
}

// Trees returns the roots of all nodes' trees.
func (c *Cluster) Trees() []string {
	var all []string
	for _, n := range c.Nodes {
		all = append(all, n.Tree())
	}
	return all
}

// Stores returns the folders of all nodes' conflict stores.
func (c *Cluster) Stores() []string {
	var all []string
	for _, n := range c.Nodes {
		all = append(all, n.Store())
	}
	return all
}

func stderrOf(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return err
}
