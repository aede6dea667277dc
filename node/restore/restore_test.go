package restore

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644))
}

func text(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	return string(b)
}

// TestFolder: a folder with one of each kind arrives with all its facts.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(dir, "kept")
	old := time.Unix(1e9, 123456789)
	write(t, from+"/sub/file\n\xff", "hello")
	must(t, unix.Setxattr(from+"/sub/file\n\xff", "user.x", []byte("v\x00w"), 0),
		os.Chmod(from+"/sub/file\n\xff", 0o640|os.ModeSetuid),
		os.Chtimes(from+"/sub/file\n\xff", old, old),
		os.Symlink("../../etc/passwd", from+"/link"),
		unix.Mkfifo(from+"/fifo", 0o604),
		os.WriteFile(from+"/sparse", nil, 0o600), os.Truncate(from+"/sparse", 1<<20),
		os.Chmod(from, 0o1777), os.Chtimes(from, old, old))
	if os.Geteuid() == 0 {
		must(t, os.Lchown(from+"/link", 12, 34), unix.Mknod(from+"/dev", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))),
			unix.Lsetxattr(from+"/link", "trusted.x", []byte("t"), 0))
		must(t, os.Chtimes(from, old, old))
	}
	to := filepath.Join(dir, "to")
	must(t, os.Mkdir(to, 0o755), Object(from, Target{Root: to, Path: "back"}))

	compare(t, from, to+"/back")
	for _, n := range []string{"sub", "sub/file\n\xff", "link", "fifo", "sparse"} {
		compare(t, filepath.Join(from, n), filepath.Join(to, "back", n))
	}
	if text(t, to+"/back/sub/file\n\xff") != "hello" {
		t.Error("other content")
	}
	v := make([]byte, 10)
	n, err := unix.Getxattr(to+"/back/sub/file\n\xff", "user.x", v)
	if err != nil || string(v[:n]) != "v\x00w" {
		t.Errorf("attribute %q, %v", v[:n], err)
	}
	if os.Geteuid() == 0 {
		compare(t, from+"/dev", to+"/back/dev")
		n, err := unix.Lgetxattr(to+"/back/link", "trusted.x", v)
		if err != nil || string(v[:n]) != "t" {
			t.Errorf("attribute of a link %q, %v", v[:n], err)
		}
	}
	if names, err := os.ReadDir(to); err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

func compare(t *testing.T, a, b string) {
	t.Helper()
	var x, y unix.Stat_t
	must(t, unix.Lstat(a, &x), unix.Lstat(b, &y))
	if x.Mode != y.Mode || x.Uid != y.Uid || x.Gid != y.Gid || x.Mtim != y.Mtim || x.Rdev != y.Rdev || x.Size != y.Size || y.Blocks > x.Blocks {
		t.Errorf("%q: %+v is not %+v", a, y, x)
	}
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	root, kept, staging := dir+"/tree", dir+"/kept", dir+"/staging"
	write(t, kept, "kept")
	write(t, root+"/file", "live")
	write(t, root+"/full/x", "x")
	must(t, os.Mkdir(root+"/empty", 0o755), os.Mkdir(staging, 0o700), os.Symlink("nowhere", root+"/link"))

	if err := Object(kept, Target{Root: root, Path: "file", Staging: staging}); !errors.Is(err, ErrInTheWay) || text(t, root+"/file") != "live" {
		t.Errorf("without leave: %v", err)
	}
	if err := Object(kept, Target{Root: root, Path: "full", Staging: staging, Replace: true}); !errors.Is(err, ErrInTheWay) || text(t, root+"/full/x") != "x" {
		t.Errorf("over a full folder: %v", err)
	}
	for _, n := range []string{"file", "empty", "link", "new"} {
		must(t, Object(kept, Target{Root: root, Path: n, Staging: staging, Replace: true}))
		if st, err := os.Lstat(filepath.Join(root, n)); err != nil || !st.Mode().IsRegular() || text(t, filepath.Join(root, n)) != "kept" {
			t.Errorf("%s: %v, %v", n, st, err)
		}
	}
	if names, err := os.ReadDir(staging); err != nil || len(names) != 0 {
		t.Errorf("left in staging: %v, %v", names, err)
	}
}

// TestNothingOutside: neither a symlink on the way nor a name leads out of the root (I7).
func TestNothingOutside(t *testing.T) {
	dir := t.TempDir()
	root, kept := dir+"/tree", dir+"/kept"
	write(t, kept, "kept")
	must(t, os.MkdirAll(root+"/real", 0o755), os.Mkdir(dir+"/victim", 0o755),
		os.Symlink(dir+"/victim", root+"/out"), os.Symlink("real", root+"/in"))
	for _, p := range []string{"out/x", "in/x", "../victim/x", "/x/y", "..", "", "real/..", "real/"} {
		if err := Object(kept, Target{Root: root, Path: p, Replace: true}); err == nil {
			t.Errorf("restored to %q", p)
		}
	}
	for _, d := range []string{"/victim", "/tree/real"} {
		if names, err := os.ReadDir(dir + d); err != nil || len(names) != 0 {
			t.Errorf("%s: %v, %v", d, names, err)
		}
	}
}
