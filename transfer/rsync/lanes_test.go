package rsync

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// modes runs a test without a jail and, where there can be one, in it.
func modes(t *testing.T, f func(t *testing.T, mode JailMode)) {
	t.Run("plain", func(t *testing.T) { f(t, Off) })
	t.Run("jail", func(t *testing.T) {
		needRoot(t)
		f(t, Require)
	})
}

func TestTransports(t *testing.T) {
	for name := range transports {
		t.Run(name, func(t *testing.T) {
			modes(t, func(t *testing.T, mode JailMode) {
				r := newRun(t, Small)
				r.transport, r.recv.Jail = name, mode
				r.write("a", "hello")
				r.write("d/e/f", strings.Repeat("x", 3<<20))
				e := r.must()
				diff(t, snapshot(t, r.src), snapshot(t, r.staging))
				if e.got.Jailed != (mode == Require) {
					t.Errorf("jailed: %v", e.got.Jailed)
				}
				if e.sent.Out < 3<<20 || e.got.In != e.sent.Out || e.got.Out != e.sent.In {
					t.Errorf("sent %d and %d, received %d and %d", e.sent.Out, e.sent.In, e.got.In, e.got.Out)
				}
			})
		})
	}
}

var hostile = []string{
	"-rf", "--delete", "#comment", ";comment", " lead", "trail ", "new\nline", "cr\r", "tab\t", "*", "?[a]", `back\slash`, `quo"te's`,
	"\xff\xfe invalid", "$HOME", "`id`", "host:path", "rsync:", "+ filter", "- filter", "!", "..a", "a..", "\x01\x1b[31m", "~",
	strings.Repeat("n", 255), "-d/#e/;f", "#d/x", "deep/" + strings.Repeat(strings.Repeat("d", 250)+"/", 10) + "f",
}

func TestEverythingAFileHas(t *testing.T) {
	modes(t, func(t *testing.T, mode JailMode) {
		needRoot(t)
		r := newRun(t, Small)
		r.recv.Jail = mode
		for i, name := range hostile {
			r.write(name, fmt.Sprint("content ", i))
		}
		r.write("empty", "")
		r.write("suid", "s")
		r.write("linked", "one inode")
		r.write("acl", "a")
		r.write("attrs", "x")
		at := func(name string) string { return filepath.Join(r.src, name) }
		check := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		check(os.Chmod(at("suid"), 0o755|os.ModeSetuid|os.ModeSetgid))
		check(os.Lchown(at("suid"), 100123, 100456))
		check(os.Chmod(at("suid"), 0o755|os.ModeSetuid|os.ModeSetgid))
		check(os.MkdirAll(at("deeper"), 0o755))
		check(os.Link(at("linked"), at("deeper/other")))
		check(os.Link(at("linked"), at("third")))
		check(os.Symlink("../../outside\n", at("link")))
		check(os.Lchown(at("link"), 1234, 5678))
		check(unix.Lsetxattr(at("attrs"), "user.any\xffbytes", []byte("\x00\x01\xff"), 0))
		capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
		check(unix.Lsetxattr(at("attrs"), "security.capability", []byte(capability), 0))
		// Version 2: owner rw, user 100007 r, group r, mask rw, others none.
		acl := "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xa7\x86\x01\x00" +
			"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"
		check(unix.Lsetxattr(at("acl"), "system.posix_acl_access", []byte(acl), 0))
		f, err := os.Create(at("sparse"))
		check(err)
		_, err = f.WriteAt([]byte("end"), 20<<20)
		check(err)
		check(f.Close())
		for i, name := range []string{"attrs", "sparse", "link"} {
			ts := []unix.Timespec{{Sec: 1e9}, {Sec: 1e9 + int64(i), Nsec: 123456789}}
			check(unix.UtimesNanoAt(unix.AT_FDCWD, at(name), ts, unix.AT_SYMLINK_NOFOLLOW))
		}
		r.send.Names = append(r.send.Names, "deeper/other", "third", "link", "sparse")
		r.must()
		diff(t, snapshot(t, r.src), snapshot(t, r.staging))
	})
}

// What a jailed rsync may not set comes as exit code 23, and the file with it.
func TestTrustedAttributesAreLeftToTheDaemon(t *testing.T) {
	needRoot(t)
	r := newRun(t, Small)
	r.recv.Jail = Require
	r.write("overlay", "upper")
	r.write("plain", "p")
	if err := unix.Lsetxattr(filepath.Join(r.src, "overlay"), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		t.Skip("needs a file system with trusted.* attributes:", err)
	}
	e := r.must()
	if e.got.Code != 23 || e.sent.PeerCode != 23 || !strings.Contains(e.sent.PeerStderr, "trusted.overlay.opaque") {
		t.Errorf("received %+v\nsent %+v", e.got, e.sent)
	}
	if read(t, r.staging+"/overlay") != "upper" || read(t, r.staging+"/plain") != "p" {
		t.Error("contents differ")
	}
}

func TestVanishedNameIsLeftOut(t *testing.T) {
	r := newRun(t, Small)
	r.write("here", "h")
	r.send.Names = append(r.send.Names, "gone", "gone/too")
	e := r.must()
	diff(t, snapshot(t, r.src), snapshot(t, r.staging))
	if e.sent.Code != 0 {
		t.Errorf("code %d: %s", e.sent.Code, e.sent.Stderr)
	}
}

func TestAllVanished(t *testing.T) {
	modes(t, func(t *testing.T, mode JailMode) {
		r := newRun(t, Small)
		r.recv.Jail = mode
		r.send.Names = []signature.Path{"gone", "gone/too", "#gone"}
		r.must()
		diff(t, nil, snapshot(t, r.staging))
	})
}

// I7: a folder that became a link out of the tree since the names were written
// down, be it root's own, is not followed.
func TestLinkOutOfTheTreeIsNotFollowed(t *testing.T) {
	outside := t.TempDir()
	write(t, outside+"/secret", "secret")
	for name, owner := range map[string]int{"root's": 0, "a user's": 100000} {
		t.Run(name, func(t *testing.T) {
			r := newRun(t, Small)
			r.write("ok", "ok")
			for i, to := range []string{outside, "../" + filepath.Base(outside)} {
				link := fmt.Sprint("link", i)
				if err := os.Symlink(to, filepath.Join(r.src, link)); err != nil {
					t.Fatal(err)
				}
				if err := os.Lchown(filepath.Join(r.src, link), owner, owner); err != nil && os.Geteuid() == 0 {
					t.Fatal(err)
				}
				r.send.Names = append(r.send.Names, signature.Path(link+"/secret"))
			}
			e := r.must()
			if e.sent.Code != 23 {
				t.Errorf("code %d: %s", e.sent.Code, e.sent.Stderr)
			}
			diff(t, map[string]string{"ok": snapshot(t, r.src)["ok"]}, snapshot(t, r.staging))
		})
	}
}

// Same size and mtime: rsync's quick check would call these equal.
func TestSameSizeAndTimeIsSent(t *testing.T) {
	for _, lane := range []Lane{Small, LargeCompare} {
		t.Run(lane.String(), func(t *testing.T) {
			r := newRun(t, lane)
			r.write("f", "new!")
			write(t, filepath.Join(r.tree, "f"), "old!")
			write(t, filepath.Join(r.staging, "f"), "old!")
			now := time.Unix(1e9, 0)
			for _, p := range []string{r.src, r.tree, r.staging} {
				if err := os.Chtimes(filepath.Join(p, "f"), now, now); err != nil {
					t.Fatal(err)
				}
			}
			r.must()
			if got := read(t, filepath.Join(r.staging, "f")); got != "new!" {
				t.Errorf("staged %q", got)
			}
		})
	}
}

func big(t *testing.T, path string, changed bool) {
	t.Helper()
	b := make([]byte, 8<<20)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(b)
	if changed {
		copy(b[5<<20:], strings.Repeat("changed", 1000))
	}
	write(t, path, string(b))
}

func TestLargeLanesSendTheDifference(t *testing.T) {
	for _, lane := range []Lane{LargeReflink, LargeCompare} {
		t.Run(lane.String(), func(t *testing.T) {
			modes(t, func(t *testing.T, mode JailMode) {
				r := newRun(t, lane)
				r.recv.Jail = mode
				big(t, filepath.Join(r.src, "img/disk"), true)
				r.send.Names = []signature.Path{"img/disk"}
				live := filepath.Join(r.tree, "img/disk")
				big(t, live, false)
				before := snapshot(t, r.tree)
				if lane == LargeReflink {
					// A copy stands for the clone: what matters is that it is patched.
					big(t, filepath.Join(r.staging, "img/disk"), false)
				}
				ino := func() (st unix.Stat_t) {
					if err := unix.Stat(filepath.Join(r.staging, "img/disk"), &st); err != nil && lane == LargeReflink {
						t.Fatal(err)
					}
					return st
				}
				was := ino().Ino
				e := r.must()
				diff(t, snapshot(t, r.src), snapshot(t, r.staging))
				if e.sent.Out > 1<<20 {
					t.Errorf("sent %d bytes of 8 MiB with 7000 changed", e.sent.Out)
				}
				if lane == LargeReflink && ino().Ino != was {
					t.Error("not patched in place")
				}
				if err := os.RemoveAll(filepath.Join(r.tree, signature.Private)); err != nil {
					t.Fatal(err)
				}
				for p := range before {
					if strings.HasPrefix(p, signature.Private) {
						delete(before, p)
					}
				}
				diff(t, before, snapshot(t, r.tree))
			})
		})
	}
}

// The folder is held open: what has its name now does not matter.
func TestSourceFolderMayBeRenamed(t *testing.T) {
	r := newRun(t, Small)
	r.write("a", "right")
	other := r.src + "-moved"
	if err := os.Rename(r.src, other); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(other) })
	write(t, filepath.Join(r.src, "a"), "wrong")
	r.must()
	if got := read(t, filepath.Join(r.staging, "a")); got != "right" {
		t.Errorf("staged %q", got)
	}
}

func TestHelperWithASpaceInItsPath(t *testing.T) {
	r := newRun(t, Small)
	dir := filepath.Join(t.TempDir(), "it's my bin")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self(t), filepath.Join(dir, "clsync")); err != nil {
		t.Fatal(err)
	}
	r.send.Helper = helper(filepath.Join(dir, "clsync"), "rsh")
	r.write("a", "x")
	r.must()
}

func TestHelperAloneRefuses(t *testing.T) {
	for _, args := range [][]string{{"rsh", "batch", "rsync"}, {"jail"}, {"jail", "{}"}, {"jail", "{"}} {
		cmd := exec.Command(self(t), args...)
		cmd.Env = []string{}
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("%q went well: %s", args, out)
		}
	}
}

func TestNonsenseIsRefusedBeforeAnythingRuns(t *testing.T) {
	for name, spoil := range map[string]func(r *run){
		"no names":   func(r *run) { r.send.Names = nil },
		"empty name": func(r *run) { r.send.Names = []signature.Path{""} },
		"above":      func(r *run) { r.send.Names = []signature.Path{"../x"} },
		"NUL":        func(r *run) { r.send.Names = []signature.Path{"a\x00b"} },
		"private":    func(r *run) { r.send.Names = []signature.Path{signature.Private + "/x"} },
		"batch":      func(r *run) { r.send.Batch = "a b" },
		"lane":       func(r *run) { r.send.Lane = 9 },
		"basis":      func(r *run) { r.send.CompareDest = "../x" },
	} {
		r := newRun(t, Small)
		r.write("a", "x")
		r.send.Binary = "/bin/false"
		spoil(r)
		a, _ := connect(t, "socketpair")
		if _, err := Send(t.Context(), r.send, a); err == nil || !strings.Contains(err.Error(), ErrSpec.Error()) {
			t.Errorf("send, %s: %v", name, err)
		}
	}
	for name, spoil := range map[string]func(r *run){
		"staging elsewhere": func(r *run) { r.recv.StagingDir = t.TempDir() },
		"staging is tree":   func(r *run) { r.recv.StagingDir = r.tree },
		"unclean":           func(r *run) { r.recv.StagingDir = r.tree + "/x/../.." },
		"root":              func(r *run) { r.recv.TreeRoot = "/" },
		"relative program":  func(r *run) { r.recv.Binary = "false" },
		"basis":             func(r *run) { r.recv.CompareDest = ".." },
	} {
		r := newRun(t, Small)
		spoil(r)
		_, b := connect(t, "socketpair")
		if _, err := Receive(t.Context(), r.recv, b); err == nil || !strings.Contains(err.Error(), ErrSpec.Error()) {
			t.Errorf("receive, %s: %v", name, err)
		}
	}
}
