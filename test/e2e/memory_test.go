package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/clsync/clsync/test/cluster"
)

// TestOneDecision_I8 writes one path on three nodes at once: one node decides, once,
// and all of them show and list the same.
func TestOneDecision_I8(t *testing.T) {
	backends(t, func(t *testing.T, monitor string) {
		c := connected(t, cluster.Options{Nodes: 3, Monitor: monitor})
		must(t, put(c.Nodes[0], "p", "the first\n"))
		c.WaitIdentical(wait)
		for round := range 5 {
			for _, n := range c.Nodes {
				must(t, put(n, "p", fmt.Sprintf("round %d of %s\n", round, n.Name)))
			}
			c.WaitIdentical(wait)
			c.Until("decided", wait, func() string {
				for _, n := range c.Nodes {
					if u := n.TreeStatus().Undecided; u > 0 {
						return fmt.Sprintf("%s has %d undecided", n.Name, u)
					}
				}
				return ""
			})
			c.WaitIdentical(wait)
		}
		conflicts, decisions := 0, 0
		for _, n := range c.Nodes {
			conflicts += strings.Count(n.Log(), "msg=conflict ")
			decisions += strings.Count(n.Log(), `msg="conflict decided"`)
		}
		t.Logf("%d times a node met a conflict, %d decisions", conflicts, decisions)
		if decisions == 0 || decisions > conflicts {
			t.Errorf("%d decisions of %d conflicts met", decisions, conflicts)
		}
		c.AssertSilent(3 * time.Second)
	})
}

var actorOf = regexp.MustCompile(`msg=index .*actor=(\S+)`)

// actors returns the actors under which a node has run, in order.
func actors(n *cluster.Node) (as []string) {
	for _, m := range actorOf.FindAllStringSubmatch(n.Log(), -1) {
		as = append(as, m[1])
	}
	return as
}

// TestLostIndex_I5_I11 takes a node's memory away: first all of it, then it gives
// back an old copy. Each time it is a new actor, nothing that was deleted meanwhile
// comes back, and nothing is deleted that others have.
func TestLostIndex_I5_I11(t *testing.T) {
	t.Parallel()
	c := connected(t, cluster.Options{Nodes: 3})
	a, b := c.Nodes[0], c.Nodes[1]
	for i := range 20 {
		write(t, a.Path(name(i)), fmt.Sprintf("content %d\n", i))
	}
	c.WaitIdentical(wait)
	b.Stop()
	index, old := filepath.Join(b.Dir, "state", "trees"), filepath.Join(b.Dir, "old")
	must(t, os.CopyFS(old, os.DirFS(index)))

	must(t, os.Remove(a.Path(name(0))))
	write(t, a.Path(name(1)), "edited while b was away\n")
	write(t, a.Path("new"), "made while b was away\n")
	must(t, os.RemoveAll(index))
	b.Start()
	c.WaitConnected(wait)
	c.WaitIdentical(wait)
	gone := func(p string) {
		t.Helper()
		for _, n := range c.Nodes {
			if _, err := os.Lstat(n.Path(p)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is back on %s: %v", p, n.Name, err)
			}
		}
	}
	gone(name(0))
	if got := read(t, b.Path(name(1))); got != "edited while b was away\n" {
		t.Errorf("b has %q", got)
	}
	for i := 2; i < 20; i++ {
		read(t, c.Nodes[2].Path(name(i)))
	}

	write(t, b.Path("of-b"), "a change of the second life\n")
	c.WaitIdentical(wait)
	must(t, os.Remove(a.Path(name(2))))
	c.WaitIdentical(wait)
	b.Stop()
	must(t, os.RemoveAll(index))
	must(t, os.CopyFS(index, os.DirFS(old)))
	write(t, b.Path("of-b"), "a change while b did not run\n")
	b.Start()
	c.WaitConnected(wait)
	c.WaitIdentical(wait)
	gone(name(2))
	if got := read(t, a.Path("of-b")); got != "a change while b did not run\n" {
		t.Errorf("a has %q", got)
	}
	seen := map[string]bool{}
	for _, actor := range actors(b) {
		if seen[actor] {
			t.Errorf("b was %s twice: its dots may have been used twice", actor)
		}
		seen[actor] = true
	}
	if len(seen) != 3 {
		t.Errorf("b was %d actors, want 3: %v", len(seen), seen)
	}
	c.AssertSilent(3 * time.Second)
}
