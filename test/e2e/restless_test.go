package e2e

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clsync/clsync/test/cluster"
	"github.com/clsync/clsync/test/load"
)

// TestNeverAtRest_I4_I12 appends to a log every 200 µs, so that it never lies still
// for as long as reading it takes. b shows beginnings of it, one after the other,
// and in the end all of it.
func TestNeverAtRest_I4_I12(t *testing.T) {
	tests := map[string]cluster.Options{
		"its beginning":    {FS: cluster.Tmpfs},
		"a clone":          {FS: cluster.XFS},
		"put off as large": {FS: cluster.XFS, TreeConfig: `big_size = "32MiB"` + "\n" + `big_delay = "2s"` + "\n"},
	}
	for what, options := range tests {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c := connected(t, options)
			a, b := c.Nodes[0], c.Nodes[1]
			log, err := os.OpenFile(a.Path("log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
			must(t, err)
			defer log.Close()
			const before, during = 40 << 20, 20 * time.Second
			begun := make(chan struct{})
			began := time.Now()
			var g errgroup.Group
			g.Go(func() error {
				tick := time.NewTicker(200 * time.Microsecond)
				defer tick.Stop()
				// The file is there and written to before it can be read once.
				if _, err := log.WriteString(strings.Repeat("so much was there before the first line\n", before/40)); err != nil {
					return err
				}
				close(begun)
				for i := 0; time.Since(began) < during; i++ {
					<-tick.C
					if _, err := fmt.Fprintf(log, "line %d\n", i); err != nil {
						return err
					}
				}
				return nil
			})
			<-begun
			states, last := 0, int64(0)
			var first time.Duration
			for time.Since(began) < during {
				time.Sleep(50 * time.Millisecond) // the pace of the reader
				st, err := os.Stat(b.Path("log"))
				if os.IsNotExist(err) || err == nil && st.Size() == last {
					continue
				}
				must(t, err)
				shown, err := os.ReadFile(b.Path("log"))
				must(t, err)
				had, err := os.ReadFile(a.Path("log"))
				must(t, err)
				if !bytes.HasPrefix(had, shown) {
					t.Fatalf("b shows %d bytes that a never had", len(shown))
				}
				if states++; states == 1 {
					first = time.Since(began)
				}
				if int64(len(shown)) < last {
					t.Errorf("b shows %d bytes after %d", len(shown), last)
				}
				last = int64(len(shown))
			}
			must(t, g.Wait())
			if states == 0 || first > 15*time.Second {
				t.Errorf("%d states in %v, the first after %v", states, during, first)
			}
			t.Logf("%d states, the first after %v", states, first)
			t.Log("the same after ", c.WaitIdentical(wait))
			c.AssertNoStaging()
			for _, n := range c.Nodes {
				if kept, err := os.ReadDir(n.Store()); err != nil || len(kept) != 0 {
					t.Errorf("%s has kept %v, %v", n.Name, kept, err)
				}
			}
		})
	}
}

// TestEditOfNeverAtRest_I2 replaces on b what a never stops to write: a's program
// keeps its file, and both states are kept.
func TestEditOfNeverAtRest_I2(t *testing.T) {
	t.Parallel()
	c := connected(t, cluster.Options{})
	a, b := c.Nodes[0], c.Nodes[1]
	var wrote strings.Builder
	wrote.WriteString(strings.Repeat("so much was there before the first line\n", 1<<20))
	must(t, put(a, "log", wrote.String()))
	c.WaitIdentical(wait)
	log, err := os.OpenFile(a.Path("log"), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	defer log.Close()
	before, err := log.Stat()
	must(t, err)
	stop := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		tick := time.NewTicker(200 * time.Microsecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return nil
			case <-tick.C:
			}
			line := fmt.Sprintf("line %d\n", i)
			wrote.WriteString(line)
			if _, err := log.WriteString(line); err != nil {
				return err
			}
		}
	})
	longer := func(what string) {
		t.Helper()
		c.Until(what, wait, func() string {
			st, err := os.Stat(b.Path("log"))
			switch {
			case err != nil:
				return err.Error()
			case st.Size() <= before.Size():
				return fmt.Sprintf("b shows %d bytes", st.Size())
			}
			return ""
		})
	}
	longer("a moment on b")
	const edit = "b's own\n"
	must(t, put(b, "log", edit))
	longer("a later moment on b")
	close(stop)
	must(t, g.Wait())
	c.WaitIdentical(wait)
	after, err := os.Stat(a.Path("log"))
	must(t, err)
	if !os.SameFile(before, after) || read(t, a.Path("log")) != wrote.String() {
		t.Errorf("a shows %d bytes in inode %d; %d bytes were written to inode %d", after.Size(), inode(after), wrote.Len(), inode(before))
	}
	var h load.History
	h.Add(load.Write{Node: "b", Path: "log", Sum: load.SumOf([]byte(edit))})
	nothingLost(t, c, &h)
	c.AssertNoStaging()
}
