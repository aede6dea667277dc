package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/test/cluster"
)

// A single is one change, and what it may cost.
type single struct {
	name string
	do   func(n *cluster.Node, i int) error

	versions, folders int64 // made by the node: of the paths, of the folder's time
	contents          int64 // sent to each other node
}

// Each change is one system call on the tree, so that no state in between can be
// seen. All of them are in the folder d.
var singles = []single{
	{"create", func(n *cluster.Node, i int) error { return put(n, "d/"+name(i), fmt.Sprintf("created %d\n", i)) }, 1, 1, 1},
	{"append", func(n *cluster.Node, i int) error {
		return onFile(n, i, os.O_WRONLY|os.O_APPEND, func(f *os.File) error { _, err := f.WriteString("appended\n"); return err })
	}, 1, 0, 1},
	{"overwrite in place", func(n *cluster.Node, i int) error {
		return onFile(n, i, os.O_WRONLY, func(f *os.File) error { _, err := f.WriteAt([]byte("OVER"), 0); return err })
	}, 1, 0, 1},
	{"replace", func(n *cluster.Node, i int) error { return put(n, "d/"+name(i), fmt.Sprintf("replaced %d\n", i)) }, 1, 1, 1},
	{"chmod", func(n *cluster.Node, i int) error { return unix.Chmod(n.Path("d", name(i)), 0o4751) }, 1, 0, 0},
	{"chown", func(n *cluster.Node, i int) error { return os.Chown(n.Path("d", name(i)), 1234, 5678) }, 1, 0, 0},
	{"attribute", func(n *cluster.Node, i int) error {
		return unix.Setxattr(n.Path("d", name(i)), "user.clsync-test", []byte("v"), 0)
	}, 1, 0, 0},
	{"touch", func(n *cluster.Node, i int) error {
		at := time.Unix(1_600_000_000+int64(i), 123)
		return os.Chtimes(n.Path("d", name(i)), at, at)
	}, 1, 0, 0},
	{"rename", func(n *cluster.Node, i int) error {
		return os.Rename(n.Path("d", name(i)), n.Path("d", "renamed-"+name(i)))
	}, 2, 1, 0},
	{"symlink", func(n *cluster.Node, i int) error { return os.Symlink("nowhere", n.Path("d", "link-"+name(i))) }, 1, 1, 0},
	{"folder", func(n *cluster.Node, i int) error { return os.Mkdir(n.Path("d", "folder-"+name(i)), 0o755) }, 1, 1, 0},
	{"delete", func(n *cluster.Node, i int) error { return os.Remove(n.Path("d", "renamed-"+name(i))) }, 1, 1, 0},
}

func onFile(n *cluster.Node, i int, flag int, f func(*os.File) error) error {
	file, err := os.OpenFile(n.Path("d", name(i)), flag, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	return f(file)
}

// TestSingleChangesEchoFree_I3 makes 300 changes one after another, in turn on
// each of three nodes, and counts what each has cost.
func TestSingleChangesEchoFree_I3(t *testing.T) {
	backends(t, func(t *testing.T, monitor string) {
		const others = 2
		c := connected(t, cluster.Options{Nodes: others + 1, Monitor: monitor})
		must(t, os.Mkdir(c.Nodes[0].Path("d"), 0o755))
		c.WaitIdentical(wait)
		var total time.Duration
		for i := range 300 / len(singles) {
			for _, s := range singles {
				before := c.Counters()
				begin := time.Now()
				must(t, s.do(c.Nodes[i%len(c.Nodes)], i))
				applied := others * (s.versions + s.folders)
				c.Until("everywhere ("+s.name+")", wait, func() string {
					if n := cluster.Sum(cluster.Since(before, c.Counters()), "records_applied"); n < applied {
						return fmt.Sprintf("%d of %d records applied", n, applied)
					}
					return ""
				})
				total += time.Since(begin)
				c.WaitIdentical(wait)
				rise := cluster.Since(before, c.Counters())
				for counter, want := range map[string]int64{
					"versions_made": s.versions, "folder_versions_made": s.folders,
					"records_applied": applied, "contents_sent": others * s.contents, "echoes": 0,
				} {
					if got := cluster.Sum(rise, counter); got != want {
						t.Fatalf("%s (round %d): %s rose by %d, want %d: %v", s.name, i, counter, got, want, rise)
					}
				}
			}
		}
		t.Logf("mean time of one change, status included: %v", total/300)
		c.AssertSilent(5 * time.Second)
	})
}
