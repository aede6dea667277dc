package disk

import (
	"context"
	"crypto/sha256"
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
