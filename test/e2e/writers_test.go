package e2e

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/test/cluster"
	"github.com/clsync/clsync/test/load"
)

// TestThreeWriters_I1_I2_I3 lets three nodes write at once, 200 changes a second
// each, for 30 s; afterwards nobody has anything to say for another 30 s.
func TestThreeWriters_I1_I2_I3(t *testing.T) {
	backends(t, func(t *testing.T, monitor string) {
		c := connected(t, cluster.Options{Nodes: 3, Monitor: monitor})
		var h load.History
		ws := writers(c, &h, 200)
		before := c.Counters()
		var g errgroup.Group
		for _, w := range ws {
			g.Go(func() error { return w.Run(t.Context(), 30*time.Second) })
		}
		must(t, g.Wait())
		c.WaitIdentical(60 * time.Second)
		rise := cluster.Since(before, c.Counters())
		versions, folders := cluster.Sum(rise, "versions_made"), cluster.Sum(rise, "folder_versions_made")
		applied := cluster.Sum(rise, "records_applied")
		t.Logf("%d changes, %d versions and %d of folders, %d records applied, %d rsync runs",
			h.Changes(), versions, folders, applied, cluster.Sum(rise, "rsync_runs"))
		if versions > int64(h.Changes()) {
			t.Errorf("%d versions of %d changes", versions-folders, h.Changes())
		}
		if limit := 2 * (versions + folders); applied > limit {
			t.Errorf("%d records applied, want %d at most", applied, limit)
		}
		if n := cluster.Sum(rise, "echoes"); n != 0 {
			t.Errorf("%d echoes", n)
		}
		asLeft(t, c.Nodes[1].Tree(), ws)
		nothingLost(t, c, &h)
		c.AssertSilent(30 * time.Second)
	})
}

// TestSamePath_I1_I2 writes one path on all three nodes within a millisecond, 200
// times. Each write is an exchange, so that it is known what it replaced: a
// content may go only if it stood at the path on the node that replaced it.
func TestSamePath_I1_I2(t *testing.T) {
	backends(t, func(t *testing.T, monitor string) {
		c := connected(t, cluster.Options{Nodes: 3, Monitor: monitor})
		for _, n := range c.Nodes {
			must(t, os.Mkdir(n.Beside()+"/out", 0o755))
		}
		must(t, put(c.Nodes[0], "p", "the first\n"))
		c.WaitIdentical(wait)
		var h load.History
		for round := range 200 {
			// Half of the rounds find the last one settled, half are in the midst of it.
			if round%2 == 0 {
				c.WaitQuiet(wait)
			}
			begin := time.Now().Add(2 * time.Millisecond)
			var g errgroup.Group
			for _, n := range c.Nodes {
				g.Go(func() error {
					content := fmt.Sprintf("round %d of node %s\n", round, n.Name)
					fresh := fmt.Sprintf("%s/out/%d", n.Beside(), round)
					if err := os.WriteFile(fresh, []byte(content), 0o644); err != nil {
						return err
					}
					time.Sleep(time.Until(begin)) // all at one moment
					return exchange(&h, n, "p", fresh, content)
				})
			}
			must(t, g.Wait())
		}
		c.WaitIdentical(longWait)
		nothingLost(t, c, &h)
		c.AssertSilent(5 * time.Second)
	})
}

// exchange puts fresh at the path and notes what stood there at that instant.
func exchange(h *load.History, n *cluster.Node, path, fresh, content string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, n.Path(path), unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("exchange on %s: %w", n.Name, err)
	}
	old, err := os.ReadFile(fresh)
	if err != nil {
		return err
	}
	h.Add(load.Write{Node: n.Name, Path: path, Sum: load.SumOf([]byte(content)), Replaces: []load.Sum{load.SumOf(old)}})
	return nil
}

// TestOpenLog_I2_I4 holds a log open on a and appends for a minute while the
// others write elsewhere.
func TestOpenLog_I2_I4(t *testing.T) {
	backends(t, func(t *testing.T, monitor string) {
		c := connected(t, cluster.Options{Nodes: 3, Monitor: monitor})
		a := c.Nodes[0]
		log, err := os.OpenFile(a.Path("app.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
		must(t, err)
		defer log.Close()
		before, err := log.Stat()
		must(t, err)
		var h load.History
		ws := writers(c, &h, 10)[1:]
		var g errgroup.Group
		for _, w := range ws {
			g.Go(func() error { return w.Run(t.Context(), 60*time.Second) })
		}
		g.Go(func() error {
			tick := time.NewTicker(60 * time.Millisecond)
			defer tick.Stop()
			for i := range 1000 {
				<-tick.C
				if _, err := fmt.Fprintf(log, "line %d\n", i); err != nil {
					return err
				}
			}
			return nil
		})
		must(t, g.Wait())
		c.WaitIdentical(60 * time.Second)
		for _, n := range c.Nodes {
			lines := strings.Split(strings.TrimSuffix(read(t, n.Path("app.log")), "\n"), "\n")
			for i, l := range lines {
				if want := fmt.Sprintf("line %d", i); l != want {
					t.Errorf("%s: line %d is %q", n.Name, i, l)
					break
				}
			}
			if len(lines) != 1000 {
				t.Errorf("%s has %d lines, want 1000", n.Name, len(lines))
			}
		}
		after, err := os.Stat(a.Path("app.log"))
		must(t, err)
		if !os.SameFile(before, after) {
			t.Errorf("the log on a is another file: inode %d, was %d", inode(after), inode(before))
		}
		asLeft(t, a.Tree(), ws)
		nothingLost(t, c, &h)
	})
}

func inode(st os.FileInfo) uint64 { return st.Sys().(*syscall.Stat_t).Ino }

// TestReadersSeeWholeFiles_I4 replaces files on a and reads them on b all the time:
// what is read was a content that was written, and never a shorter one.
func TestReadersSeeWholeFiles_I4(t *testing.T) {
	t.Parallel()
	c := connected(t, cluster.Options{Nodes: 2})
	a, b := c.Nodes[0], c.Nodes[1]
	whole := func(i int) string { return strings.Repeat(fmt.Sprintf("%06d\n", i), 20_000) }
	must(t, put(a, "f", whole(0)))
	c.WaitIdentical(wait)
	stop := make(chan struct{})
	var reads int
	var seen sync.WaitGroup
	seen.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			content, err := os.ReadFile(b.Path("f"))
			if err != nil {
				t.Errorf("read: %v", err)
				return
			}
			var i int
			if _, err := fmt.Sscanf(string(content), "%d\n", &i); err != nil || string(content) != whole(i) {
				t.Errorf("b showed a mixture of %d bytes", len(content))
				return
			}
			reads++
		}
	})
	for i := range 40 {
		must(t, put(a, "f", whole(i+1)))
		time.Sleep(100 * time.Millisecond) // the pace of the writer
	}
	c.WaitIdentical(wait)
	close(stop)
	seen.Wait()
	if reads < 50 {
		t.Errorf("only %d reads", reads)
	}
}
