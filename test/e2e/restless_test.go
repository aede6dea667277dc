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
