package e2e

import (
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clsync/clsync/test/cluster"
	"github.com/clsync/clsync/test/load"
)

// TestKillUnderLoad_I1_I2_I10 kills daemons at random moments while all three
// nodes are written to, and starts them again.
func TestKillUnderLoad_I1_I2_I10(t *testing.T) {
	backends(t, func(t *testing.T, monitor string) {
		c := connected(t, cluster.Options{Nodes: 3, Monitor: monitor})
		var h load.History
		ws := writers(c, &h, 40)
		var g errgroup.Group
		for _, w := range ws {
			g.Go(func() error { return w.Run(t.Context(), 20*time.Second) })
		}
		const seed = 42
		rnd := rand.New(rand.NewPCG(seed, 0))
		for range 9 {
			time.Sleep(time.Duration(rnd.IntN(1500)) * time.Millisecond) // a random moment
			n := c.Nodes[rnd.IntN(len(c.Nodes))]
			n.Kill9()
			time.Sleep(time.Duration(rnd.IntN(500)) * time.Millisecond) // changes while it is down
			n.Start()
		}
		must(t, g.Wait())
		c.WaitConnected(wait)
		c.WaitIdentical(longWait)
		asLeft(t, c.Nodes[2].Tree(), ws)
		nothingLost(t, c, &h)
		c.AssertNoStaging()
		c.AssertSilent(5 * time.Second)
	})
}

// TestStopAndStart_I10 stops daemons as systemd does, under load; nothing is told
// again that was known.
func TestStopAndStart_I10(t *testing.T) {
	t.Parallel()
	c := connected(t, cluster.Options{Nodes: 3, Race: true})
	var h load.History
	ws := writers(c, &h, 40)
	var g errgroup.Group
	for _, w := range ws {
		g.Go(func() error { return w.Run(t.Context(), 5*time.Second) })
	}
	for _, n := range c.Nodes {
		n.Stop()
		n.Start()
	}
	must(t, g.Wait())
	c.WaitConnected(wait)
	c.WaitIdentical(longWait)
	asLeft(t, c.Nodes[1].Tree(), ws)
	nothingLost(t, c, &h)
	for _, n := range c.Nodes {
		n.Stop()
	}
	for _, n := range c.Nodes {
		n.Start()
	}
	c.WaitConnected(wait)
	c.WaitIdentical(longWait)
	// Counters begin at 0 with a daemon: what they show now came of the restart.
	now := c.Counters()
	for _, k := range []string{"versions_made", "folder_versions_made", "records_applied", "contents_sent"} {
		if n := cluster.Sum(now, k); n != 0 {
			t.Errorf("a restart at rest: %s is %d, want 0", k, n)
		}
	}
}
