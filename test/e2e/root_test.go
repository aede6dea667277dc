package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/clsync/clsync/test/cluster"
	"github.com/clsync/clsync/test/compare"
)

// TestUnmountedRoot_I6 takes the file system away under the daemon, and has it
// missing at the start: a mount point that is empty deletes nothing anywhere.
func TestUnmountedRoot_I6(t *testing.T) {
	backends(t, func(t *testing.T, monitor string) {
		c := connected(t, cluster.Options{Nodes: 3, Monitor: monitor, FS: cluster.Ext4, DiskSize: 64 << 20, TreeIsMount: true, TreeConfig: `scan_interval = "1s"` + "\n"})
		a, b := c.Nodes[0], c.Nodes[1]
		for i := range 200 {
			write(t, a.Path(name(i)), fmt.Sprintf("%d\n", i))
		}
		c.WaitIdentical(wait)
		full, err := compare.Scan(a.Tree(), compare.Contents)
		must(t, err)

		stopped := func() {
			t.Helper()
			c.Until("stopped, with a reason", wait, func() string {
				if s := b.TreeStatus(); s.State != "stopped" || s.Reason == "" {
					return fmt.Sprintf("state %q, reason %q", s.State, s.Reason)
				}
				return ""
			})
			t.Logf("b says: %s", b.TreeStatus().Reason)
			c.AssertSilent(3 * time.Second)
			for _, n := range []*cluster.Node{a, c.Nodes[2]} {
				tree, err := compare.Scan(n.Tree(), compare.Contents)
				must(t, err)
				if ds := compare.Diff(full, tree); len(ds) > 0 {
					t.Fatalf("%s has changed: %d differences, first %v", n.Name, len(ds), ds[0])
				}
			}
			if b.Status().Healthy {
				t.Error("b calls itself healthy")
			}
		}
		resumes := func(i int) {
			t.Helper()
			b.Mount()
			write(t, a.Path("later"), fmt.Sprintf("when it is back, %d\n", i))
			c.WaitIdentical(wait)
			write(t, b.Path("later"), fmt.Sprintf("and from b, %d\n", i))
			c.WaitIdentical(wait)
			full, err = compare.Scan(a.Tree(), compare.Contents)
			must(t, err)
		}
		b.Unmount()
		stopped()
		resumes(1)

		b.Stop()
		b.Unmount()
		b.Start()
		stopped()
		resumes(2)

		// Somebody writes into the empty mount point meanwhile.
		b.Unmount()
		stopped()
		must(t, os.WriteFile(b.Path("stray"), []byte("beneath the mount\n"), 0o644))
		stopped()
		must(t, os.Remove(b.Path("stray")))
		resumes(3)
	})
}
