package e2e

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/test/cluster"
	"github.com/clsync/clsync/test/compare"
	"github.com/clsync/clsync/test/fixture"
)

// minbase returns a root file system made by debootstrap, kept between runs.
func minbase(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip("needs a cache folder for the root file system: ", err)
	}
	suite := "stable"
	if f, err := os.Open("/etc/os-release"); err == nil {
		for s := bufio.NewScanner(f); s.Scan(); {
			if v, ok := strings.CutPrefix(s.Text(), "VERSION_CODENAME="); ok {
				suite = v
			}
		}
		f.Close()
	}
	dir := filepath.Join(cache, "clsync-test", "minbase-"+suite)
	if _, err := os.Stat(filepath.Join(dir, "etc", "os-release")); err == nil {
		return dir
	}
	part := dir + ".part"
	must(t, errors.Join(os.RemoveAll(part), os.MkdirAll(part, 0o755)))
	if out, err := exec.Command("debootstrap", "--variant=minbase", suite, part).CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Skipf("needs a Debian mirror: debootstrap: %v: %s", err, lines[len(lines)-1])
	}
	must(t, os.Rename(part, dir))
	return dir
}

// TestRootFileSystem_I1 puts a whole Debian on a and wants it everywhere.
func TestRootFileSystem_I1(t *testing.T) {
	t.Parallel()
	cluster.Need(t, "debootstrap")
	root := minbase(t)
	c := connected(t, cluster.Options{Nodes: 3, FS: cluster.Ext4, DiskSize: 2 << 30})
	a := c.Nodes[0]
	command(t, "cp", "-a", root+"/.", a.Tree())
	c.WaitIdentical(longWait)
	source, err := compare.Scan(root, compare.Contents)
	must(t, err)
	shown, err := compare.Scan(a.Tree(), compare.Contents)
	must(t, err)
	if ds := compare.Without(compare.Diff(source, shown), compare.Holes); len(ds) > 0 {
		t.Errorf("what was put on a has changed: %d differences, first %v", len(ds), ds[0])
	}
	t.Logf("%d paths", len(shown))
	c.AssertNoStaging()
}

// TestFixture_I1 puts everything that must be kept on a.
func TestFixture_I1(t *testing.T) {
	tests := []struct {
		fs      cluster.FS
		monitor string
	}{{cluster.Ext4, "fanotify"}, {cluster.XFS, "fsnotify"}, {cluster.Tmpfs, "fanotify"}}
	for _, tt := range tests {
		t.Run(string(tt.fs)+","+tt.monitor, func(t *testing.T) {
			t.Parallel()
			c := connected(t, cluster.Options{Nodes: 3, FS: tt.fs, Monitor: tt.monitor})
			skipped, err := fixture.Make(c.Nodes[0].Tree(), fixture.Options{})
			must(t, err)
			if len(skipped) > 0 {
				t.Errorf("the fixture is not complete: %v", skipped)
			}
			want, err := compare.Scan(c.Nodes[0].Tree(), compare.Contents)
			must(t, err)
			c.WaitIdentical(wait)
			for _, n := range c.Nodes {
				got, err := compare.Scan(n.Tree(), compare.Contents)
				must(t, err)
				if ds := compare.Diff(want, got); len(ds) > 0 {
					t.Errorf("%s: %d differences, first %s", n.Name, len(ds), ds[0])
				}
			}
			c.AssertNoStaging()
		})
	}
}

// TestEtcOnly_I1 replicates four files of a copy of /etc and changes them with
// useradd, which locks, writes beside and renames, on two nodes in turn.
func TestEtcOnly_I1(t *testing.T) {
	t.Parallel()
	cluster.Need(t, "useradd")
	files := []string{"group", "passwd", "shadow", "shells"}
	c := cluster.New(t, cluster.Options{Nodes: 3, TreeConfig: `only = ["passwd", "shadow", "group", "shells"]` + "\n",
		Prepare: func(n *cluster.Node) error {
			if n.Name != "a" {
				return nil
			}
			return exec.Command("cp", "-a", "/etc/.", n.Tree()).Run()
		}})
	c.WaitConnected(wait)
	same := func() {
		t.Helper()
		took := c.Until("the same four files", wait, func() string {
			var first compare.Tree
			for _, n := range c.Nodes {
				tree, err := compare.Scan(n.Tree(), compare.Contents)
				if err != nil {
					return err.Error()
				}
				for path := range tree {
					if !slices.Contains(files, path) {
						delete(tree, path)
					}
				}
				if len(tree) != len(files) {
					return n.Name + " has not all of them"
				}
				if first == nil {
					first = tree
				} else if ds := compare.Diff(first, tree); len(ds) > 0 {
					return n.Name + ": " + ds[0].String()
				}
			}
			return ""
		})
		t.Log("the same after ", took)
	}
	same()
	useradd := func(n *cluster.Node, user string) {
		t.Helper()
		// useradd wants the folder to be called etc.
		prefix := filepath.Join(n.Dir, "prefix")
		must(t, os.MkdirAll(prefix+"/etc", 0o755))
		must(t, unix.Mount(n.Tree(), prefix+"/etc", "", unix.MS_BIND, ""))
		defer func() { must(t, unix.Unmount(prefix+"/etc", 0)) }()
		command(t, "useradd", "--prefix", prefix, "--no-create-home", "--user-group", user)
	}
	useradd(c.Nodes[0], "alice")
	same()
	useradd(c.Nodes[1], "bob")
	same()
	last := c.Nodes[2]
	for _, user := range []string{"alice:", "bob:"} {
		for _, f := range []string{"passwd", "shadow", "group"} {
			if !strings.Contains(read(t, last.Path(f)), "\n"+user) {
				t.Errorf("c has no %s in %s", user, f)
			}
		}
	}
	entries, err := os.ReadDir(last.Tree())
	must(t, err)
	for _, e := range entries {
		if e.Name() != compare.Private && !slices.Contains(files, e.Name()) {
			t.Errorf("c has %s, which is not to be replicated", e.Name())
		}
	}
}
