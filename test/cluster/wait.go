package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clsync/clsync/test/compare"
)

// Until waits until the predicate returns nothing, and fails the test with what
// it still says at the deadline. It returns how long that took.
func (c *Cluster) Until(what string, within time.Duration, missing func() string) time.Duration {
	c.t.Helper()
	begin := time.Now()
	pause := 5 * time.Millisecond
	for {
		why := missing()
		took := time.Since(begin)
		if why == "" {
			return took
		}
		if took > within {
			c.t.Fatalf("not %s within %v:\n%s", what, within, why)
		}
		time.Sleep(pause)
		pause = min(2*pause, 200*time.Millisecond)
	}
}

// WaitConnected waits until every running node sees every other one.
func (c *Cluster) WaitConnected(within time.Duration) {
	c.t.Helper()
	took := c.Until("connected", within, func() string {
		running := slices.DeleteFunc(slices.Clone(c.Nodes), func(n *Node) bool { return !n.Running() })
		for _, n := range running {
			s, err := n.status()
			if err != nil {
				return err.Error()
			}
			connected := 0
			for _, p := range s.Trees[0].Peers {
				if p.Connected {
					connected++
				}
			}
			if connected < len(running)-1 {
				return fmt.Sprintf("%s is connected to %d of %d peers: %v", n.Name, connected, len(running)-1, s.Problems)
			}
		}
		return ""
	})
	c.t.Logf("connected after %v", took.Round(time.Millisecond))
}

// WaitQuiet waits until no running node has anything left to do.
func (c *Cluster) WaitQuiet(within time.Duration) {
	c.t.Helper()
	c.Until("quiet", within, c.busy)
}

// busy says who still has something to do.
func (c *Cluster) busy() string {
	for _, n := range c.Nodes {
		if !n.Running() {
			continue
		}
		s, err := n.status()
		if err != nil {
			return fmt.Sprintf("%s: %v", n.Name, err)
		}
		if why := s.Trees[0].busy(); why != "" {
			return n.Name + ": " + why
		}
	}
	return ""
}

// WaitIdentical waits until nothing is pending and all trees are the same in
// everything, and prints how long it took.
func (c *Cluster) WaitIdentical(within time.Duration) time.Duration {
	c.t.Helper()
	return c.WaitIdenticalBut(within)
}

// WaitIdenticalBut does the same, but lets the trees differ in some facts.
func (c *Cluster) WaitIdenticalBut(within time.Duration, but ...compare.Kind) time.Duration {
	c.t.Helper()
	took := c.Until("identical", within, func() string {
		if why := c.busy(); why != "" {
			return why + "\n" + c.differences(compare.Facts, but)
		}
		// Contents take long to read; they are looked at when the rest is right.
		if why := c.differences(compare.Facts, but); why != "" {
			return why
		}
		return c.differences(compare.Contents, but)
	})
	c.t.Logf("identical after %v", took.Round(time.Millisecond))
	return took
}

// differences says in what the nodes' trees differ from the first one's.
func (c *Cluster) differences(depth compare.Depth, but []compare.Kind) string {
	first, err := compare.Scan(c.Nodes[0].Tree(), depth)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, n := range c.Nodes[1:] {
		other, err := compare.Scan(n.Tree(), depth)
		if err != nil {
			return err.Error()
		}
		ds := compare.Without(compare.Diff(first, other), but...)
		for i, d := range ds {
			if i == 20 {
				fmt.Fprintf(&b, "  and %d more\n", len(ds)-i)
				break
			}
			fmt.Fprintf(&b, "  %s and %s: %s\n", c.Nodes[0].Name, n.Name, d)
		}
	}
	return b.String()
}

// work is what a cluster at rest does none of.
var work = []string{"rsync_runs", "records_sent", "records_applied", "versions_made", "folder_versions_made", "contents_sent", "echoes"}

// AssertSilent watches for that long and fails the test if any node makes a
// version, sends or applies a record, or runs rsync. The last verdict on a conflict
// may come when the trees are identical already; it is waited for.
func (c *Cluster) AssertSilent(during time.Duration) {
	c.t.Helper()
	before, since := c.Counters(), time.Now()
	c.Until("at rest", 20*time.Second, func() string {
		now := c.Counters()
		rise := Since(before, now)
		for _, k := range work {
			if Sum(rise, k) != 0 {
				before, since = now, time.Now()
				return fmt.Sprintf("%s rose: %v", k, rise)
			}
		}
		if time.Since(since) < time.Second {
			return "at rest for less than a second"
		}
		return ""
	})
	for end := time.Now().Add(during); time.Now().Before(end); {
		time.Sleep(min(time.Second, time.Until(end))) // this is the silence itself
		rise := Since(before, c.Counters())
		for _, k := range work {
			if Sum(rise, k) != 0 {
				c.t.Errorf("not silent: %s rose: %v", k, rise)
				return
			}
		}
	}
}

// AssertNoStaging fails the test if a node that is at rest has content in staging.
func (c *Cluster) AssertNoStaging() {
	c.t.Helper()
	c.Until("without staged content", 10*time.Second, func() string {
		var left []string
		for _, n := range c.Nodes {
			tree, err := compare.Scan(n.Path(".clsync"), compare.Facts)
			if err != nil {
				return err.Error()
			}
			for path := range tree {
				if strings.HasPrefix(path, "staging/") {
					left = append(left, n.Name+": "+path)
				}
			}
		}
		return strings.Join(left, "\n")
	})
}
