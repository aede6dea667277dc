package e2e

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/clsync/clsync/test/cluster"
	"github.com/clsync/clsync/test/compare"
)

// TestDiskFull_I2_I4_I12 lets b's disk run full: the file that does not fit is
// reported and tried again, everything else goes on.
func TestDiskFull_I2_I4_I12(t *testing.T) {
	for _, fs := range []cluster.FS{cluster.Tmpfs, cluster.Ext4} {
		t.Run(string(fs), func(t *testing.T) {
			t.Parallel()
			const size = 400 << 20
			c := connected(t, cluster.Options{Nodes: 3, FS: fs, DiskSize: size})
			a, b, other := c.Nodes[0], c.Nodes[1], c.Nodes[2]
			ballast := b.Beside() + "/ballast"
			must(t, os.WriteFile(ballast, bytes.Repeat([]byte("ballast "), (size-60<<20)/8), 0o600))
			must(t, put(a, "large", strings.Repeat("does not fit\n", 100<<20/13)))

			c.Until("reported as blocked", wait, func() string {
				for _, p := range b.TreeStatus().Blocked {
					if p.Path == "large" && strings.Contains(p.Reason, "space") {
						return ""
					}
				}
				return fmt.Sprintf("blocked: %q", b.TreeStatus().Blocked)
			})
			if b.Status().Healthy {
				t.Error("b calls itself healthy")
			}
			if _, err := os.Lstat(b.Path("large")); err == nil {
				t.Error("b shows the file that does not fit")
			}
			for i := range 20 {
				write(t, a.Path(name(i)), fmt.Sprintf("small %d\n", i))
				write(t, b.Path("b"+name(i)), fmt.Sprintf("from b %d\n", i))
			}
			c.Until("all but the large file on b, and everything on c", wait, func() string {
				ta, err := compare.Scan(a.Tree(), compare.Contents)
				must(t, err)
				tb, err := compare.Scan(b.Tree(), compare.Contents)
				must(t, err)
				tc, err := compare.Scan(other.Tree(), compare.Contents)
				must(t, err)
				if ds := compare.Diff(ta, tc); len(ds) > 0 {
					return "c: " + ds[0].String()
				}
				delete(ta, "large")
				if ds := compare.Diff(ta, tb); len(ds) > 0 {
					return "b: " + ds[0].String()
				}
				if len(ta) != 40 {
					return fmt.Sprintf("%d paths", len(ta))
				}
				return ""
			})
			must(t, os.Remove(ballast))
			c.WaitIdentical(longWait)
			c.AssertNoStaging()
		})
	}
}
