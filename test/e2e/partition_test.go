package e2e

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clsync/clsync/test/cluster"
	"github.com/clsync/clsync/test/load"
)

// TestPartitionAndHeal_I1_I2_I5 cuts a off; both sides write, delete and rename.
func TestPartitionAndHeal_I1_I2_I5(t *testing.T) {
	backends(t, func(t *testing.T, monitor string) {
		c := connected(t, cluster.Options{Nodes: 3, Monitor: monitor})
		a, b, cc := c.Nodes[0], c.Nodes[1], c.Nodes[2]
		for _, n := range c.Nodes {
			must(t, os.Mkdir(n.Beside()+"/out", 0o755))
		}
		for _, dir := range []string{"deleted", "renamed", "both", "edited"} {
			must(t, os.Mkdir(a.Path(dir), 0o755))
			for i := range 30 {
				write(t, a.Path(dir, name(i)), fmt.Sprintf("%s %d\n", dir, i))
			}
		}
		c.WaitIdentical(wait)
		c.Partition([]int{0}, []int{1, 2})
		var h load.History
		ws := writers(c, &h, 40)
		var g errgroup.Group
		for _, w := range ws {
			g.Go(func() error { return w.Run(t.Context(), 5*time.Second) })
		}
		for i := range 30 {
			// Half of what is deleted goes on one side, half on the other.
			from := []*cluster.Node{a, b}[i%2]
			must(t, errors.Join(
				os.Remove(from.Path("deleted", name(i))),
				os.Rename(from.Path("renamed", name(i)), from.Path("renamed", "to-"+name(i))),
			))
			// Every file of this folder is changed on both sides.
			for _, n := range []*cluster.Node{a, cc} {
				content := fmt.Sprintf("both, %d, on %s\n", i, n.Name)
				fresh := n.Beside() + "/out/both" + name(i)
				write(t, fresh, content)
				must(t, exchange(&h, n, "both/"+name(i), fresh, content))
			}
			// These are deleted on one side and edited on the other.
			content := fmt.Sprintf("edited, %d\n", i)
			fresh := cc.Beside() + "/out/edited" + name(i)
			write(t, fresh, content)
			must(t, exchange(&h, cc, "edited/"+name(i), fresh, content))
			must(t, os.Remove(a.Path("edited", name(i))))
		}
		must(t, g.Wait())
		c.Until("b and c identical while a is away", wait, func() string {
			lost, err := load.Lost(&h, []string{a.Tree(), b.Tree()}, nil)
			if err != nil {
				return err.Error()
			}
			if len(lost) > 0 {
				return lost[0]
			}
			return ""
		})
		c.Heal()
		c.WaitConnected(60 * time.Second)
		c.WaitIdentical(60 * time.Second)
		asLeft(t, b.Tree(), ws)
		nothingLost(t, c, &h)
		for i := range 30 {
			for _, gone := range []string{"deleted/" + name(i), "renamed/" + name(i)} {
				if _, err := os.Lstat(a.Path(gone)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s came back: %v", gone, err)
				}
			}
			if got := read(t, b.Path("renamed", "to-"+name(i))); got != fmt.Sprintf("renamed %d\n", i) {
				t.Errorf("renamed file %d holds %q", i, got)
			}
		}
		if n := a.TreeStatus().Conflicts + b.TreeStatus().Conflicts + cc.TreeStatus().Conflicts; n < 30 {
			t.Errorf("%d states in the conflict stores, want 30 at least", n)
		}
		c.AssertSilent(5 * time.Second)
	})
}

// TestUnpluggedNodeCatchesUp_I1_I5 takes a link down, so that a node is away and
// knows it.
func TestUnpluggedNodeCatchesUp_I1_I5(t *testing.T) {
	t.Parallel()
	c := connected(t, cluster.Options{Nodes: 3, Race: true})
	a, away := c.Nodes[0], c.Nodes[2]
	for i := range 100 {
		write(t, a.Path(name(i)), fmt.Sprintf("%d\n", i))
	}
	c.WaitIdentical(wait)
	c.Unplug(2)
	for i := range 50 {
		must(t, os.Remove(a.Path(name(i))))
	}
	write(t, away.Path("written-away"), "away\n")
	c.Heal()
	c.WaitConnected(60 * time.Second)
	c.WaitIdentical(60 * time.Second)
	entries, err := os.ReadDir(away.Tree())
	must(t, err)
	if want := 50 + 1 + 1; len(entries) != want { // and the private folder
		t.Errorf("%d entries, want %d", len(entries), want)
	}
}

// TestMulticastAlone_I1 finds the others without a seed; TestBoth has both ways.
func TestMulticastAlone_I1(t *testing.T) {
	t.Parallel()
	c := connected(t, cluster.Options{Nodes: 3, NoSeeds: true, Multicast: true})
	write(t, c.Nodes[2].Path("hello"), "by multicast\n")
	c.WaitIdentical(wait)
}

// TestSeedsAndMulticast_I1 joins by both ways at once.
func TestSeedsAndMulticast_I1(t *testing.T) {
	t.Parallel()
	c := connected(t, cluster.Options{Nodes: 3, Multicast: true})
	write(t, c.Nodes[1].Path("hello"), "by both\n")
	c.WaitIdentical(wait)
}
