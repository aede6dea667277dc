package e2e

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/clsync/clsync/test/cluster"
)

// TestOverflow_I1_I12 makes 20 000 files while the daemon does not look.
func TestOverflow_I1_I12(t *testing.T) {
	backends(t, func(t *testing.T, monitor string) {
		const files = 20_000
		c := connected(t, cluster.Options{Nodes: 2, Monitor: monitor})
		a := c.Nodes[0]
		a.Pause()
		for i := range files {
			if i%1000 == 0 {
				must(t, os.Mkdir(a.Path(fmt.Sprintf("d%02d", i/1000)), 0o755))
			}
			write(t, a.Path(fmt.Sprintf("d%02d", i/1000), name(i)), fmt.Sprintf("%d\n", i))
			if i%2 == 0 { // twice as many events
				must(t, os.Chmod(a.Path(fmt.Sprintf("d%02d", i/1000), name(i)), 0o600))
			}
		}
		a.Cont()
		c.WaitConnected(wait)
		c.WaitIdentical(longWait)
		s := a.TreeStatus()
		t.Logf("%d overflows, %d scans", s.Counters["overflows"], s.Counters["scans"])
		if monitor == "fsnotify" && s.Counters["overflows"] == 0 {
			// The folders were not watched yet; what is in them came by scans.
			if s.Counters["scans"] == 0 {
				t.Error("neither an overflow nor a scan is reported")
			}
		}
	})
}

// TestWatchedFolderOverflows_I1_I12 overflows the queue of a folder that is watched
// already, where only the overflow tells that events are missing.
func TestWatchedFolderOverflows_I1_I12(t *testing.T) {
	t.Parallel()
	c := connected(t, cluster.Options{Nodes: 2, Monitor: "fsnotify"})
	a := c.Nodes[0]
	must(t, os.Mkdir(a.Path("d"), 0o755))
	c.WaitIdentical(wait)
	a.Pause()
	for i := range 20_000 {
		write(t, a.Path("d", name(i)), fmt.Sprintf("%d\n", i))
	}
	a.Cont()
	c.WaitConnected(wait)
	c.WaitIdentical(longWait)
	if n := a.TreeStatus().Counters["overflows"]; n == 0 {
		t.Error("no overflow is reported")
	}
}

// TestChangesWhileStopped_I1_I5 changes a tree of which the daemon is not there.
func TestChangesWhileStopped_I1_I5(t *testing.T) {
	backends(t, func(t *testing.T, monitor string) {
		c := connected(t, cluster.Options{Nodes: 3, Monitor: monitor})
		a, b := c.Nodes[0], c.Nodes[1]
		must(t, os.MkdirAll(a.Path("d/e"), 0o755))
		for i := range 100 {
			write(t, a.Path("d", name(i)), fmt.Sprintf("content %04d\n", i))
		}
		c.WaitIdentical(wait)
		a.Stop()
		st, err := os.Stat(a.Path("d", name(0)))
		must(t, err)
		must(t, errors.Join(
			// The same size and time again: only ctime tells.
			os.WriteFile(a.Path("d", name(0)), []byte("CONTENT 0000\n"), 0o644), os.Chtimes(a.Path("d", name(0)), st.ModTime(), st.ModTime()),
			os.Chmod(a.Path("d", name(1)), 0o4700),
			os.Remove(a.Path("d", name(2))),
			os.Rename(a.Path("d", name(3)), a.Path("d/e", name(3))),
			os.Remove(a.Path("d", name(4))), os.Mkdir(a.Path("d", name(4)), 0o755),
			os.Symlink("d", a.Path("link")),
			os.WriteFile(a.Path("d/e/new"), []byte("new\n"), 0o600),
		))
		write(t, b.Path("d", name(50)), "changed on b meanwhile\n")
		must(t, os.Remove(b.Path("d", name(51))))
		a.Start()
		c.WaitConnected(wait)
		c.WaitIdentical(wait)
		if got := read(t, c.Nodes[2].Path("d", name(0))); got != "CONTENT 0000\n" {
			t.Errorf("c has %q: an edit that kept size and time was not seen", got)
		}
		if _, err := os.Lstat(a.Path("d", name(51))); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("what b deleted came back from a: %v", err)
		}
		c.AssertSilent(3 * time.Second)
	})
}

// TestWatchLimit_I1_I12 leaves a 50 watches for 200 folders, in a user namespace.
func TestWatchLimit_I1_I12(t *testing.T) {
	t.Parallel()
	cluster.Need(t, "unshare")
	c := cluster.New(t, cluster.Options{Nodes: 2, Stopped: true, Monitor: "fsnotify", Jail: "off", TreeConfig: `scan_interval = "2s"` + "\n"})
	a, b := c.Nodes[0], c.Nodes[1]
	a.Wrap = []string{"unshare", "--user", "--map-root-user", "sh", "-c",
		`echo 50 > /proc/sys/user/max_inotify_watches && exec "$@"`, "sh"}
	for i := range 200 {
		must(t, os.Mkdir(a.Path(fmt.Sprintf("d%03d", i)), 0o755))
	}
	a.Start()
	b.Start()
	c.WaitConnected(wait)
	c.WaitIdentical(wait)
	for i := range 200 {
		write(t, a.Path(fmt.Sprintf("d%03d", i), "file"), fmt.Sprintf("%d\n", i))
	}
	c.WaitIdentical(wait)
	for i := range 200 { // without a change of the folder's time
		f, err := os.OpenFile(a.Path(fmt.Sprintf("d%03d", i), "file"), os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		_, err = f.WriteString("more\n")
		must(t, errors.Join(err, f.Close()))
	}
	c.WaitIdentical(wait)
	s := a.TreeStatus()
	if s.BackendReason == "" && s.Reason == "" && a.Status().Healthy {
		t.Errorf("status says nothing of the limit: %+v", s)
	}
	t.Logf("a says: %s %s", s.Backend, s.BackendReason)
}
