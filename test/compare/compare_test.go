package compare_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/test/compare"
)

const (
	secs = 1_700_000_000
	nano = 123_456_789
)

// build makes the tree that both sides start from. Everything gets one time.
func build(t *testing.T, dir string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("content\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "one"), []byte("linked\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "three"), []byte("linked\n"), 0o644))
	must(t, os.Link(filepath.Join(dir, "one"), filepath.Join(dir, "two")))
	must(t, os.Mkdir(filepath.Join(dir, "folder"), 0o755))
	must(t, os.Symlink("file", filepath.Join(dir, "link")))
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "sparse"), nil, 0o644))
	must(t, os.Truncate(filepath.Join(dir, "sparse"), 4<<20))
	for _, n := range []string{"file", "one", "three", "folder", "link", "fifo", "sparse"} {
		must(t, restamp(filepath.Join(dir, n)))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSameTreesDoNotDiffer(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	build(t, a)
	build(t, b)
	must(t, os.Mkdir(filepath.Join(a, compare.Private), 0o700))
	must(t, os.WriteFile(filepath.Join(a, compare.Private, "x"), nil, 0o600))
	must(t, os.Chmod(b, 0o711)) // the root's own facts do not count
	if ds := diff(t, a, b); len(ds) != 0 {
		t.Errorf("two equal trees differ: %v", ds)
	}
}

// TestEveryKindIsFound changes one fact on one side and wants exactly that one
// reported, from both sides.
func TestEveryKindIsFound(t *testing.T) {
	tests := []struct {
		kind   compare.Kind
		name   string // of the case
		path   string
		root   bool
		change func(path string) error
	}{
		{compare.Missing, "missing file", "file", false, os.Remove},
		{compare.Missing, "missing empty folder", "folder", false, os.Remove},
		{compare.Missing, "missing fifo", "fifo", false, os.Remove},
		{compare.Extra, "extra name with a newline", "a\n\x1b[31m\xff", false, func(p string) error { return os.WriteFile(p, nil, 0o644) }},
		{compare.Extra, "private folder beneath the top", "folder/.clsync", false, func(p string) error {
			return errors.Join(os.Mkdir(p, 0o700), restamp(filepath.Dir(p)))
		}},
		{compare.Type, "symlink for folder", "folder", false, func(p string) error {
			return errors.Join(os.Remove(p), os.Symlink("file", p), restamp(p))
		}},
		{compare.Type, "socket for fifo", "fifo", false, func(p string) error {
			return errors.Join(os.Remove(p), socket(p), os.Chmod(p, 0o600), restamp(p))
		}},
		{compare.Mode, "permission", "file", false, func(p string) error { return os.Chmod(p, 0o600) }},
		{compare.Mode, "setuid", "file", false, func(p string) error { return unix.Chmod(p, 0o4644) }},
		{compare.Mode, "sticky folder", "folder", false, func(p string) error { return unix.Chmod(p, 0o1755) }},
		{compare.Mode, "fifo", "fifo", false, func(p string) error { return unix.Chmod(p, 0o640) }},
		{compare.Owner, "owner", "file", true, func(p string) error { return os.Chown(p, 12345, -1) }},
		{compare.Owner, "owner of a symlink", "link", true, func(p string) error { return os.Lchown(p, 12345, -1) }},
		{compare.Group, "group", "folder", true, func(p string) error { return os.Chown(p, -1, 54321) }},
		{compare.Size, "size", "file", false, func(p string) error { return errors.Join(os.WriteFile(p, []byte("longer content\n"), 0), restamp(p)) }},
		{compare.Content, "same size and time", "file", false, func(p string) error { return errors.Join(os.WriteFile(p, []byte("CONTENT\n"), 0), restamp(p)) }},
		{compare.MTime, "one nanosecond", "file", false, func(p string) error { return touch(p, secs, nano+1) }},
		{compare.MTime, "of a folder", "folder", false, func(p string) error { return touch(p, secs, nano+1) }},
		{compare.MTime, "of a symlink", "link", false, func(p string) error { return touch(p, secs, nano+1) }},
		{compare.MTime, "of a fifo", "fifo", false, func(p string) error { return touch(p, secs, nano+1) }},
		{compare.Target, "target", "link", false, func(p string) error {
			return errors.Join(os.Remove(p), os.Symlink("fil\xff", p), restamp(p))
		}},
		{compare.Device, "device number", "null", true, func(p string) error {
			return errors.Join(os.Remove(p), unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))), restamp(p))
		}},
		{compare.Xattr, "user attribute", "file", false, func(p string) error { return unix.Setxattr(p, "user.x", []byte("v"), 0) }},
		{compare.Xattr, "of a folder", "folder", false, func(p string) error { return unix.Setxattr(p, "user.x", nil, 0) }},
		{compare.Xattr, "trusted attribute of a symlink", "link", true, func(p string) error { return unix.Lsetxattr(p, "trusted.x", []byte("v"), 0) }},
		{compare.Xattr, "security attribute", "file", true, func(p string) error { return unix.Setxattr(p, "security.clsync", []byte("v"), 0) }},
		{compare.Xattr, "default ACL", "folder", false, func(p string) error {
			return unix.Setxattr(p, "system.posix_acl_default", acl, 0)
		}},
		{compare.Links, "a link that became a file", "two", false, func(p string) error {
			return errors.Join(os.Remove(p), os.WriteFile(p, []byte("linked\n"), 0o644), restamp(p))
		}},
		{compare.Links, "a file that became a link", "three", false, func(p string) error {
			return errors.Join(os.Remove(p), os.Link(filepath.Join(filepath.Dir(p), "one"), p))
		}},
		{compare.Holes, "a hole filled with zeros", "sparse", false, func(p string) error {
			return errors.Join(os.WriteFile(p, make([]byte, 4<<20), 0), restamp(p))
		}},
	}
	for _, tt := range tests {
		t.Run(string(tt.kind)+", "+tt.name, func(t *testing.T) {
			if tt.root && os.Getuid() != 0 {
				t.Skip("needs root: sets an owner, a device or a privileged attribute")
			}
			a, b := t.TempDir(), t.TempDir()
			for _, dir := range []string{a, b} {
				build(t, dir)
				if tt.path == "null" {
					p := filepath.Join(dir, "null")
					must(t, unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
					must(t, restamp(p))
				}
			}
			if err := tt.change(filepath.Join(b, tt.path)); errors.Is(err, unix.ENOTSUP) {
				t.Skip("the file system keeps no such attribute: ", err)
			} else {
				must(t, err)
			}
			want(t, diff(t, a, b), tt.kind, tt.path)
			back := map[compare.Kind]compare.Kind{compare.Missing: compare.Extra, compare.Extra: compare.Missing}
			kind, ok := back[tt.kind]
			if !ok {
				kind = tt.kind
			}
			want(t, diff(t, b, a), kind, tt.path)
		})
	}
}

func want(t *testing.T, ds []compare.Difference, kind compare.Kind, path string) {
	t.Helper()
	if len(ds) != 1 || ds[0].Kind != kind || ds[0].Path != path {
		t.Errorf("found %v, want one %s of %q", ds, kind, path)
	}
}

func TestTreecmpEscapesAndExits(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "treecmp")
	if out, err := exec.Command("go", "build", "-o", bin, "./cmd/treecmp").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	a, b := t.TempDir(), t.TempDir()
	build(t, a)
	build(t, b)
	if out, err := exec.Command(bin, a, b).CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("equal trees: %v, %q", err, out)
	}
	must(t, os.WriteFile(filepath.Join(b, "\x1b[2J\n"), nil, 0o644))
	out, err := exec.Command(bin, a, b).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("different trees: %v, want exit status 1", err)
	}
	if strings.ContainsRune(string(out), '\x1b') || strings.Count(string(out), "\n") != 1 {
		t.Errorf("output is not escaped: %q", out)
	}
}

// acl is u::rwx, g::r-x, o::--- in the kernel's form.
var acl = []byte("\x02\x00\x00\x00" +
	"\x01\x00\x07\x00\xff\xff\xff\xff" + "\x04\x00\x05\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff")

func diff(t *testing.T, a, b string) []compare.Difference {
	t.Helper()
	ds, err := compare.Trees(a, b)
	must(t, err)
	return ds
}

func restamp(path string) error { return touch(path, secs, nano) }

func touch(path string, s, ns int64) error {
	ts := []unix.Timespec{{Sec: s, Nsec: ns}, {Sec: s, Nsec: ns}}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW)
}

func socket(path string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	return l.Close()
}
