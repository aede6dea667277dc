package disk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// mounts are the file systems under test, by type: a folder on each.
var mounts = map[string]string{}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "clsync-disk")
	if err != nil {
		panic(err)
	}
	if os.Geteuid() == 0 {
		for _, fs := range []string{"tmpfs", "ext4", "xfs", "btrfs"} {
			if err := mountTest(dir, fs); err != nil {
				fmt.Fprintf(os.Stderr, "without %s: %v\n", fs, err)
			}
		}
	}
	code := m.Run()
	for _, d := range mounts {
		if err := unix.Unmount(d, unix.MNT_DETACH); err != nil {
			fmt.Fprintf(os.Stderr, "unmount %s: %v\n", d, err)
		}
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

func mountTest(dir, fs string) error {
	at, image := filepath.Join(dir, fs), filepath.Join(dir, fs+".img")
	if err := os.Mkdir(at, 0o755); err != nil {
		return err
	}
	if fs == "tmpfs" {
		if err := unix.Mount("tmpfs", at, "tmpfs", 0, "size=64m"); err != nil {
			return err
		}
		mounts[fs] = at
		return nil
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, 320<<20); err != nil {
		return err
	}
	for _, argv := range [][]string{{"mkfs." + fs, "-q", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", argv[0], err, out)
		}
	}
	mounts[fs] = at
	return nil
}

// bench is a tree under test.
type bench struct {
	t    *testing.T
	dir  string
	root *signature.Root
	tree *Tree
	mode SyncMode
}

// eachFS runs a story on every file system that could be mounted.
func eachFS(t *testing.T, story func(*testing.T, *bench)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts, owners, devices")
	}
	if len(mounts) == 0 {
		t.Skip("needs to mount tmpfs or a loop image")
	}
	for fs, at := range mounts {
		for _, mode := range []SyncMode{SyncEach, SyncWhole} {
			t.Run(fmt.Sprintf("%s/%d", fs, mode), func(t *testing.T) {
				dir, err := os.MkdirTemp(at, "tree")
				must(t, err)
				t.Cleanup(func() { os.RemoveAll(dir) })
				story(t, newBench(t, dir, mode))
			})
		}
	}
}

func newBench(t *testing.T, dir string, mode SyncMode) *bench {
	t.Helper()
	root, err := signature.OpenRoot(dir, signature.LookConfig{})
	must(t, err)
	tree, err := Open(root, Config{Node: "test", Ignored: func(p signature.Path) bool { return strings.HasSuffix(string(p), ".tmp") }})
	must(t, err)
	t.Cleanup(func() { tree.Close(); root.Close(); failpoint = func(string, signature.Path) {} })
	return &bench{t, dir, root, tree, mode}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bench) at(p string) string { return filepath.Join(b.dir, p) }

func (b *bench) write(p, content string) {
	b.t.Helper()
	must(b.t, os.WriteFile(b.at(p), []byte(content), 0o644))
}

func (b *bench) read(p string) string {
	b.t.Helper()
	c, err := os.ReadFile(b.at(p))
	if err != nil {
		return "error: " + err.Error()
	}
	return string(c)
}

func (b *bench) look(p string) signature.Look {
	b.t.Helper()
	l := b.root.Look(context.Background(), signature.Path(p), signature.Signature{}, signature.StatMark{})
	must(b.t, l.Err)
	return l
}

// stage puts a content into staging.
func (b *bench) stage(name, content string) Content {
	b.t.Helper()
	dir, err := b.tree.Batch("b1")
	must(b.t, err)
	must(b.t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	return Content{Batch: "b1", Staged: name}
}

const testTime = 1_600_000_000_123_456_789

func file(content string) signature.Signature {
	return signature.Signature{
		Type: signature.File, Facts: signature.Facts{Mode: 0o640, UID: 12, GID: 34, MTime: testTime},
		Size: int64(len(content)), Hash: signature.Hash{Algorithm: signature.SHA256, Sum: sha256.Sum256([]byte(content))},
	}
}

func kind(t signature.Type) signature.Signature {
	s := signature.Signature{Type: t, Facts: signature.Facts{Mode: 0o755, UID: 3, GID: 4, MTime: testTime}}
	switch t {
	case signature.Symlink:
		s.Mode, s.Target = 0, "../../etc/passwd"
	case signature.CharDevice:
		s.Rdev, s.Mode = 0, 0 // a whiteout
	case signature.BlockDevice:
		s.Rdev = unix.Mkdev(7, 300)
	}
	return s
}

func (b *bench) apply(as ...Apply) []Applied {
	b.t.Helper()
	out, err := b.tree.Apply(context.Background(), as, b.mode)
	if err != nil {
		b.t.Fatalf("apply: %v", err)
	}
	return out
}

// one applies one path and wants that outcome.
func (b *bench) one(want Outcome, a Apply) Applied {
	b.t.Helper()
	r := b.apply(a)[0]
	b.want(r, want, a)
	return r
}

// want also holds the look after against the target and against a look anew.
func (b *bench) want(r Applied, want Outcome, a Apply) {
	b.t.Helper()
	if r.Outcome != want || (r.Err == nil) != (want == Done) {
		b.t.Fatalf("%s: %s, %v; want %s", a.Path.Quote(), r.Outcome, r.Err, want)
	}
	if want == Done && (r.Look.Err != nil || r.Look.Sig != a.Target.Bare()) {
		b.t.Fatalf("%s shows %+v, %v; want %+v", a.Path.Quote(), r.Look.Sig, r.Look.Err, a.Target)
	}
	if l := b.look(string(a.Path)); l.Sig != r.Look.Sig || !l.Mark.Same(r.Look.Mark) {
		b.t.Fatalf("%s shows %+v, then %+v", a.Path.Quote(), r.Look, l)
	}
}

// clean wants nothing left in the grace pool.
func (b *bench) clean() {
	b.t.Helper()
	names, err := list(b.tree.dirs[grace])
	must(b.t, err)
	if len(names) != 0 {
		b.t.Fatalf("left in the grace pool: %q", names)
	}
}

// rest sets how long what was displaced rests at least.
func rest(t *testing.T, d time.Duration) {
	old := restFor
	restFor = d
	t.Cleanup(func() { restFor = old })
}

func (b *bench) kept() []Conflict {
	b.t.Helper()
	cs, err := b.tree.Conflicts()
	must(b.t, err)
	return cs
}

func TestCreateReplaceDelete(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		r := b.one(Done, Apply{Path: "f", Target: file("one"), Content: b.stage("x", "one")})
		ino := r.Look.Mark.Ino
		r = b.one(Done, Apply{Path: "f", Target: file("two"), Expect: r.Look.Sig, Mark: r.Look.Mark, Content: b.stage("x", "two")})
		if r.Look.Mark.Ino == ino {
			t.Error("a replaced file kept its inode")
		}
		r = b.one(Done, Apply{Path: "f", Target: file(""), Expect: r.Look.Sig, Mark: r.Look.Mark})
		b.one(Done, Apply{Path: "f", Target: signature.Signature{Type: signature.Absent}, Expect: r.Look.Sig, Mark: r.Look.Mark})
		b.one(Done, Apply{Path: "f", Target: signature.Signature{Type: signature.Absent}, Expect: r.Look.Sig, Mark: r.Look.Mark})
		b.one(Blocked, Apply{Path: "f", Target: file("x")})
		b.clean()
		if k := b.kept(); len(k) != 0 {
			t.Errorf("kept %+v", k)
		}
	})
}

var kinds = []signature.Type{
	signature.Absent, signature.File, signature.Folder, signature.Symlink, signature.Fifo,
	signature.Socket, signature.CharDevice, signature.BlockDevice,
}

func TestEveryFlip(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		shown := signature.Look{Sig: signature.Signature{Type: signature.Absent}}
		for _, from := range kinds {
			for _, to := range kinds {
				for _, k := range []signature.Type{from, to} {
					a := Apply{Path: "p", Target: kind(k), Expect: shown.Sig, Mark: shown.Mark}
					switch k {
					case signature.Absent:
						a.Target = signature.Signature{Type: k}
					case signature.File:
						a.Target = file("content")
						if shown.Sig.Type != k {
							a.Content = b.stage("x", "content")
						}
					}
					shown = b.one(Done, a).Look
				}
			}
		}
		b.clean()
		if k := b.kept(); len(k) != 0 {
			t.Errorf("kept %+v", k)
		}
	})
}

func TestFolderNotEmpty(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		b.one(Done, Apply{Path: "d", Target: kind(signature.Folder)})
		b.write("d/f", "x")
		l := b.look("d")
		b.one(NotEmpty, Apply{Path: "d", Target: file(""), Expect: l.Sig, Mark: l.Mark})
		b.one(NotEmpty, Apply{Path: "d", Target: signature.Signature{Type: signature.Absent}, Expect: l.Sig, Mark: l.Mark})
		must(t, os.Rename(b.at("d/f"), b.at("d/f.tmp")))
		b.one(Done, Apply{Path: "d", Target: signature.Signature{Type: signature.Absent}, Expect: l.Sig, Mark: l.Mark})
		k := b.kept()
		if len(k) != 1 || k[0].Path != "d" || k[0].Sig.Type != signature.Folder {
			t.Fatalf("kept %+v", k)
		}
		if c, err := os.ReadFile(filepath.Join(k[0].File, "f.tmp")); err != nil || string(c) != "x" {
			t.Errorf("kept %q, %v", c, err)
		}
		// A name that comes between the look and the exchange keeps the folder, too.
		b.one(Done, Apply{Path: "e", Target: kind(signature.Folder)})
		l = b.look("e")
		failpoint = func(step string, p signature.Path) {
			if step == "exchange" {
				b.write("e/late", "y")
			}
		}
		b.one(NotEmpty, Apply{Path: "e", Target: file(""), Expect: l.Sig, Mark: l.Mark})
		if got := b.read("e/late"); got != "y" {
			t.Errorf("e/late: %s", got)
		}
		b.clean()
	})
}

func TestNoParent(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		b.one(NoParent, Apply{Path: "no/f", Target: file("")})
		b.write("f", "x")
		b.one(NoParent, Apply{Path: "f/g", Target: file("")})
		must(t, os.Symlink("/", b.at("l")))
		b.one(NoParent, Apply{Path: "l/clsync-must-not-be", Target: file(""), Content: Content{}})
		b.one(Done, Apply{Path: "l/f", Target: signature.Signature{Type: signature.Absent}, Expect: file("x")})
		b.clean()
	})
}

func TestUnseenEdit(t *testing.T) {
	steps := map[string]func(b *bench){
		"written before": func(b *bench) { b.write("f", "mine") },
		"saved before":   func(b *bench) { b.write("g", "mine"); must(b.t, os.Rename(b.at("g"), b.at("f"))) },
	}
	for name, edit := range steps {
		t.Run(name, func(t *testing.T) {
			eachFS(t, func(t *testing.T, b *bench) {
				b.write("f", "held")
				l := b.look("f")
				edit(b)
				for _, a := range []Apply{
					{Path: "f", Target: file("new"), Content: b.stage("x", "new")},
					{Path: "f", Target: signature.Signature{Type: signature.Absent}},
					{Path: "f", Target: signature.Signature{Type: signature.File, Facts: signature.Facts{Mode: 0o600}, Size: 4, Hash: l.Sig.Hash}},
				} {
					a.Expect, a.Mark = l.Sig, l.Mark
					b.one(Moved, a)
					if got := b.read("f"); got != "mine" {
						b.t.Errorf("the local change is gone: %s", got)
					}
				}
				// What was staged is there for another attempt.
				if got := b.read(".clsync/staging/b1/x"); got != "new" {
					b.t.Errorf("staged: %s", got)
				}
				b.one(Moved, Apply{Path: "f", Target: file("new"), Content: Content{Batch: "b1", Staged: "x"}})
				b.clean()
			})
		})
	}
}

// TestUnseenEditInBetween plays a local user who saves, by rename, between the
// look and the switch; and after it.
func TestUnseenEditInBetween(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		save := func(content string) {
			b.write("g", content)
			must(b.t, os.Rename(b.at("g"), b.at("f")))
		}
		for name, tt := range map[string]struct {
			target    signature.Signature
			step      []string
			live, old string
		}{
			"before the exchange":    {file("new"), []string{"exchange"}, "mine 1", ""},
			"and after it":           {file("new"), []string{"exchange", "exchanged"}, "mine 2", "mine 1"},
			"and while it goes back": {file("new"), []string{"exchange", "put back"}, "mine 2", "mine 1"},
			"before the removal":     {signature.Signature{Type: signature.Absent}, []string{"remove"}, "mine 1", ""},
			"and after the removal":  {signature.Signature{Type: signature.Absent}, []string{"remove", "removed"}, "mine 2", "mine 1"},
		} {
			failpoint = func(string, signature.Path) {}
			b.write("f", "held")
			l := b.look("f")
			n := 0
			failpoint = func(step string, p signature.Path) {
				if n < len(tt.step) && step == tt.step[n] {
					n++
					save(fmt.Sprintf("mine %d", n))
				}
			}
			a := Apply{Path: "f", Target: tt.target, Expect: l.Sig, Mark: l.Mark}
			if tt.target.Exists() {
				a.Content = b.stage("x", "new")
			}
			r := b.one(Moved, a)
			if got := b.read("f"); got != tt.live {
				t.Errorf("%s: live %s, want %s", name, got, tt.live)
			}
			if (r.Kept != "") != (tt.old != "") {
				t.Errorf("%s: kept %q", name, r.Kept)
			}
			if r.Kept != "" {
				if got := b.read(".clsync/conflicts/" + r.Kept + "/content"); got != tt.old {
					t.Errorf("%s: kept %s, want %s", name, got, tt.old)
				}
				must(t, b.tree.RemoveConflict(r.Kept))
			}
			b.clean()
		}
	})
}

func TestBusy(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		b.write("f", "held")
		l := b.look("f")
		w, err := os.OpenFile(b.at("f"), os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		a := Apply{Path: "f", Target: file("new"), Expect: l.Sig, Mark: l.Mark, Content: b.stage("x", "new")}
		b.one(Busy, a)
		b.one(Busy, Apply{Path: "f", Target: signature.Signature{Type: signature.Absent}, Expect: l.Sig, Mark: l.Mark})
		if got := b.read("f"); got != "held" {
			t.Errorf("f: %s", got)
		}
		// Facts alone are set, and the inode stays.
		chmod := l.Sig
		chmod.Mode, chmod.MTime = 0o604, testTime
		r := b.one(Done, Apply{Path: "f", Target: chmod, Expect: l.Sig, Mark: l.Mark})
		if r.Look.Mark.Ino != l.Mark.Ino {
			t.Error("an open file was replaced")
		}
		w.Close()
		a.Expect, a.Mark = r.Look.Sig, r.Look.Mark
		b.one(Done, a)
		b.clean()
	})
}

// TestLateWriter opens the file for writing after the lease was taken: it waits,
// and gets the displaced inode.
func TestLateWriter(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		b.write("f", "held")
		l := b.look("f")
		opened := make(chan *os.File, 1)
		failpoint = func(step string, p signature.Path) {
			if step != "exchange" {
				return
			}
			// A writer who has resolved the name before the switch. Without waiting he is
			// told that a lease is in the way, and the lease is broken; then he waits.
			fd, err := unix.Open(b.at("f"), unix.O_PATH, 0)
			must(t, err)
			name := fmt.Sprintf("/proc/self/fd/%d", fd)
			if w, err := unix.Open(name, unix.O_WRONLY|unix.O_NONBLOCK, 0); err != unix.EAGAIN {
				t.Fatalf("no lease is held: %d, %v", w, err)
			}
			go func() {
				w, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
				unix.Close(fd)
				if err != nil {
					t.Error(err)
				}
				opened <- w
			}()
		}
		r := b.apply(Apply{Path: "f", Target: file("new"), Expect: l.Sig, Mark: l.Mark, Content: b.stage("x", "new")})[0]
		w := <-opened
		_, err := w.WriteString(" and a late line")
		must(t, err)
		if got := b.read("f"); got != "new" {
			t.Errorf("f: %s", got)
		}
		if r.Outcome != Done || !r.Resting {
			t.Fatalf("%+v", r)
		}
		rest(t, 0)
		s, err := b.tree.SweepGrace(context.Background())
		must(t, err)
		if s.Resting != 1 || len(s.Kept) != 0 {
			t.Errorf("while it is open: %+v", s)
		}
		w.Close()
		s, err = b.tree.SweepGrace(context.Background())
		must(t, err)
		if s.Resting != 0 || len(s.Kept) != 1 || s.Kept[0].Path != "f" {
			t.Fatalf("after it was closed: %+v", s)
		}
		if got := b.read(strings.TrimPrefix(s.Kept[0].File, b.dir)); got != "held and a late line" {
			t.Errorf("kept %s", got)
		}
		b.clean()
	})
}

func TestBlocked(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		b.write("f", "held")
		l := b.look("f")
		if out, err := exec.Command("chattr", "+i", b.at("f")).CombinedOutput(); err != nil {
			t.Skipf("needs chattr +i: %s", out)
		}
		defer exec.Command("chattr", "-i", b.at("f")).Run()
		l = b.look("f")
		r := b.one(Blocked, Apply{Path: "f", Target: file("new"), Expect: l.Sig, Mark: l.Mark, Content: b.stage("x", "new")})
		if !errors.Is(r.Err, unix.EPERM) {
			t.Errorf("%v", r.Err)
		}
		b.one(Blocked, Apply{Path: "f", Target: signature.Signature{Type: signature.Absent}, Expect: l.Sig, Mark: l.Mark})
		if got := b.read(".clsync/staging/b1/x"); got != "new" {
			t.Errorf("staged: %s", got)
		}
		for _, p := range []signature.Path{"../f", ".clsync/x", "/f", ""} {
			if r := b.apply(Apply{Path: p, Target: file("")})[0]; r.Outcome != Blocked || !errors.Is(r.Err, signature.ErrPath) {
				t.Errorf("path %q: %s, %v", p, r.Outcome, r.Err)
			}
		}
		b.clean()
	})
}
