//go:build linux

package monitor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/clsync/clsync/signature"
)

// The kernel loses events, among them those of new folders. All is looked at, and
// the new folders are watched.
func TestOverflow(t *testing.T) {
	backends(t, func(t *testing.T, cfg Config) {
		cfg.smallQueue = true
		gate := make(chan struct{})
		open := sync.OnceFunc(func() { close(gate) })
		defer open()
		cfg.Ignored = func(p signature.Path) bool {
			if p == "gate" {
				<-gate // the kernel's queue is not read meanwhile
			}
			return false
		}
		r := start(t, cfg)
		put(t, filepath.Join(cfg.Root, "gate"), "x")
		for n := range 17_000 {
			put(t, filepath.Join(cfg.Root, "f"), "x")
			if n%1000 == 0 {
				mkdir(t, cfg.Root, fmt.Sprintf("d%d/e", n))
			}
			must(t, os.Rename(filepath.Join(cfg.Root, "f"), filepath.Join(cfg.Root, "g")))
		}
		mkdir(t, cfg.Root, "late/r")
		open()
		r.await("overflow", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.deep[""] && r.overflow
		})
		if r.m.Stats().Overflows == 0 {
			t.Error("not counted")
		}
		r.fence()
		r.forget()
		touchAll(t, cfg.Root)
		put(t, filepath.Join(cfg.Root, "late/r/f"), "x")
		r.await("all, later", func() bool { return len(r.uncovered()) == 0 })
	})
}

// A reader that does not read neither stops the monitor nor makes it grow.
func TestSlowReader(t *testing.T) {
	backends(t, func(t *testing.T, cfg Config) {
		cfg.Pending = 100
		m := open(t, cfg)
		for n := range 300 {
			d := mkdir(t, cfg.Root, fmt.Sprintf("a/%d", n))
			for k := range 10 {
				put(t, fmt.Sprintf("%s/%d", d, k), "x")
			}
		}
		r := read(t, m, cfg.Root)
		r.await("all", func() bool { return len(r.uncovered()) == 0 })
		r.fence()
		r.forget()
		touchAll(t, cfg.Root)
		r.await("all, later", func() bool { return len(r.uncovered()) == 0 })
		if m.Stats().Collapsed == 0 {
			t.Error("nothing was collapsed: the test proves nothing")
		}
	})
}

func TestPrivateAndIgnored(t *testing.T) {
	backends(t, func(t *testing.T, cfg Config) {
		mkdir(t, cfg.Root, "ignored/a")
		cfg.Ignored = func(p signature.Path) bool { return p == "ignored" || strings.HasSuffix(string(p), ".tmp") }
		private := filepath.Join(cfg.Root, signature.Private)
		mkdir(t, private, "staging")
		r := start(t, cfg)
		put(t, private+"/staging/f", "x")
		put(t, filepath.Join(mkdir(t, private, "conflicts/a"), "g"), "x")
		put(t, cfg.Root+"/ignored/a/f", "x")
		put(t, cfg.Root+"/k.tmp", "x")
		must(t, os.Rename(cfg.Root+"/k.tmp", cfg.Root+"/ignored/k"))
		put(t, filepath.Join(mkdir(t, cfg.Root, "b/l.tmp/c"), "f"), "x")
		r.fence()
		for _, p := range []signature.Path{signature.Private, signature.Private + "/staging/f", signature.Private + "/conflicts/a/g",
			"ignored", "ignored/a/f", "ignored/k", "k.tmp", "b/l.tmp/c/f"} {
			r.mu.Lock()
			if r.plain[p] || r.deep[p] {
				t.Errorf("%q was hinted", p)
			}
			r.mu.Unlock()
		}
		// What comes out of there is news; what goes in is gone.
		must(t, os.Rename(private+"/conflicts/a", cfg.Root+"/a"))
		r.awaitDeep("a")
		put(t, cfg.Root+"/a/later", "x")
		r.awaitHint("a/later")
		must(t, os.Rename(cfg.Root+"/ignored/a", cfg.Root+"/c"))
		r.awaitDeep("c")
		r.fence()
		r.forget()
		must(t, os.Rename(cfg.Root+"/c", private+"/c"))
		r.awaitDeep("c")
	})
}

// The limit of watches, in a user namespace that has one of its own.
func TestWatchLimit(t *testing.T) {
	const inside = "CLSYNC_TEST_USER_NAMESPACE"
	if os.Getenv(inside) == "" {
		needRoot(t, "to make a user namespace with a limit")
		cmd := exec.Command(os.Args[0], "-test.run=^TestWatchLimit$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestWatchLimit") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	must(t, os.WriteFile("/proc/sys/user/max_inotify_watches", []byte("50"), 0o644))
	root := t.TempDir()
	for n := range 20 {
		mkdir(t, root, fmt.Sprintf("%02d/a/b/c", n))
	}
	r := start(t, Config{Root: root, PollUnwatched: 50 * time.Millisecond})
	if r.m.Backend() != Fsnotify || !strings.Contains(r.m.Reason(), "operation not permitted") {
		t.Errorf("backend %s because of %q", r.m.Backend(), r.m.Reason())
	}
	if st := r.m.Stats(); !st.Limited || st.Watches != 50 || st.Unwatched == 0 {
		t.Errorf("%+v", st)
	}
	for n := range 20 {
		put(t, filepath.Join(root, fmt.Sprintf("%02d/a/b/c/f", n)), "x")
	}
	for n := range 20 {
		r.awaitHint(signature.Path(fmt.Sprintf("%02d/a/b/c/f", n))) // by polling where not watched
	}
	mkdir(t, root, "new/n")
	r.fence()
	r.forget()
	put(t, filepath.Join(root, "new/n/f"), "x")
	r.awaitHint("new/n/f")

	for n := range 16 {
		must(t, os.RemoveAll(filepath.Join(root, fmt.Sprintf("%02d", n))))
	}
	r.await("everything watched again", func() bool {
		st := r.m.Stats()
		return !st.Limited && st.Unwatched == 0 && st.Watches == 1+4*4+2
	})
	r.forget()
	touchAll(t, root)
	r.await("all, by events", func() bool { return len(r.uncovered()) == 0 })
}
