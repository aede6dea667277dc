package signature

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openTestRoot(t *testing.T) (*Root, string) {
	t.Helper()
	dir := t.TempDir()
	r, err := OpenRoot(dir, LookConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, dir
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: devices, mounts, trusted attributes")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLookTypes(t *testing.T) {
	needRoot(t)
	r, dir := openTestRoot(t)
	ctx := context.Background()
	at := func(n string) string { return filepath.Join(dir, n) }
	must(t, os.WriteFile(at("file"), []byte("hello"), 0o600))
	must(t, unix.Chmod(at("file"), 0o4751))
	must(t, unix.Setxattr(at("file"), "trusted.a", []byte("1"), 0))
	must(t, os.Mkdir(at("folder"), 0o750))
	must(t, os.Symlink("../../outside", at("link")))
	must(t, unix.Lsetxattr(at("link"), "trusted.l", []byte("2"), 0))
	must(t, unix.Mknod(at("fifo"), unix.S_IFIFO|0o644, 0))
	must(t, unix.Mknod(at("sock"), unix.S_IFSOCK|0o644, 0))
	must(t, unix.Mknod(at("char"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(at("whiteout"), unix.S_IFCHR, 0))
	must(t, unix.Mknod(at("block"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 300))))

	want := map[string]Signature{
		"file":      {Type: File, Facts: Facts{Mode: 0o4751, Xattrs: EncodeXattrs([]Xattr{{"trusted.a", "1"}})}, Size: 5, Hash: Hash{SHA256, sha256.Sum256([]byte("hello"))}},
		"folder":    {Type: Folder, Facts: Facts{Mode: 0o750}},
		"link":      {Type: Symlink, Facts: Facts{Xattrs: EncodeXattrs([]Xattr{{"trusted.l", "2"}})}, Target: "../../outside"},
		"fifo":      {Type: Fifo, Facts: Facts{Mode: 0o644}},
		"sock":      {Type: Socket, Facts: Facts{Mode: 0o644}},
		"char":      {Type: CharDevice, Facts: Facts{Mode: 0o600}, Rdev: unix.Mkdev(1, 3)},
		"whiteout":  {Type: CharDevice},
		"block":     {Type: BlockDevice, Facts: Facts{Mode: 0o600}, Rdev: unix.Mkdev(7, 300)},
		"nothing":   {Type: Absent},
		"file/x":    {Type: Absent},
		"link/x":    {Type: Absent},
		"missing/x": {Type: Absent},
	}
	for _, n := range []string{"fifo", "sock"} { // whatever the umask
		must(t, os.Chmod(at(n), 0o644))
	}
	mtime := time.Unix(1234567890, 987654321)
	for n := range want {
		if want[n].Exists() {
			ts := unix.NsecToTimespec(mtime.UnixNano())
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, at(n), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
			w := want[n]
			w.MTime = mtime.UnixNano()
			want[n] = w
		}
	}
	for n, w := range want {
		l := r.Look(ctx, Path(n), Signature{}, StatMark{})
		if l.Err != nil || l.Sig != w {
			t.Errorf("look at %s: %+v, %v; want %+v", n, l.Sig, l.Err, w)
		}
		if (l.Mark == StatMark{}) == w.Exists() {
			t.Errorf("look at %s: mark %+v", n, l.Mark)
		}
	}
}

func TestLookUnchanged(t *testing.T) {
	r, dir := openTestRoot(t)
	ctx := context.Background()
	name := filepath.Join(dir, "f")
	must(t, os.WriteFile(name, []byte("one"), 0o600))
	first := r.Look(ctx, "f", Signature{}, StatMark{})
	must(t, first.Err)
	young := first.Mark
	young.Looked = young.CTime
	if l := r.Look(ctx, "f", first.Sig, young); l.Unchanged || l.Sig != first.Sig {
		t.Errorf("a young mark was believed: %+v", l)
	}
	old := first.Mark
	old.Looked = old.CTime + int64(time.Second)
	if l := r.Look(ctx, "f", first.Sig, old); !l.Unchanged || l.Sig != (Signature{}) || !l.Mark.Same(old) {
		t.Errorf("a settled mark was not believed: %+v", l)
	}
	if l := r.Look(ctx, "f", Signature{}, old); l.Unchanged {
		t.Error("unchanged since nothing was shown")
	}
	// Same size, and the old mtime put back: only ctime and the content tell.
	mtime := time.Unix(0, first.Sig.MTime)
	must(t, os.WriteFile(name, []byte("two"), 0o600))
	must(t, os.Chtimes(name, mtime, mtime))
	if l := r.Look(ctx, "f", first.Sig, old); l.Unchanged || l.Sig.Hash == first.Sig.Hash {
		t.Errorf("a change with mtime put back was missed: %+v", l)
	}
	if l := r.LookKnowing(ctx, "f", old, Hash{SHA256, [32]byte{1}}); l.Sig.Hash.Sum != sha256.Sum256([]byte("two")) {
		t.Errorf("a known hash was taken for another content: %+v", l)
	}
	now := r.Look(ctx, "f", Signature{}, StatMark{})
	if l := r.LookKnowing(ctx, "f", now.Mark, Hash{SHA256, [32]byte{1}}); l.Sig.Hash.Sum != [32]byte{1} {
		t.Errorf("a known hash was not taken: %+v", l)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if l := r.Look(done, "f", Signature{}, StatMark{}); !errors.Is(l.Err, context.Canceled) || l.Sig.Type != Unknown {
		t.Errorf("look after cancel: %+v", l)
	}
}

func TestLookMoving(t *testing.T) {
	r, dir := openTestRoot(t)
	name := filepath.Join(dir, "f")
	must(t, os.WriteFile(name, []byte("one"), 0o600))
	calls := 0
	l := r.look(context.Background(), "f", func(StatMark) (Hash, bool) {
		calls++
		must(t, os.WriteFile(name, []byte("longer"), 0o600))
		return Hash{}, false
	})
	if calls != 1 || !errors.Is(l.Err, ErrMoving) || l.Sig.Type != Unknown {
		t.Errorf("written to during the look: %+v", l)
	}
	l = r.look(context.Background(), "f", func(StatMark) (Hash, bool) {
		must(t, os.WriteFile(name+".new", []byte("other"), 0o600))
		must(t, os.Rename(name+".new", name))
		return Hash{}, false
	})
	if !errors.Is(l.Err, ErrMoving) {
		t.Errorf("replaced during the look: %+v", l)
	}
}

func TestLookExtremes(t *testing.T) {
	r, dir := openTestRoot(t)
	ctx := context.Background()
	// 255-byte names down to a path of more than 4000 bytes; made step by step,
	// since no absolute path that long can be opened.
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	name := strings.Repeat("\xff", 255)
	p := ""
	for range 15 {
		must(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		must(t, err)
		unix.Close(fd)
		fd = next
		p += name + "/"
	}
	last := strings.Repeat("n", 4095-len(p))
	f, err := unix.Openat(fd, last, unix.O_CREAT|unix.O_WRONLY, 0o600)
	must(t, err)
	unix.Close(f)
	unix.Close(fd)
	long, err := ParsePath(p + last)
	must(t, err)
	if l := r.Look(ctx, long, Signature{}, StatMark{}); l.Err != nil || l.Sig.Type != File || l.Sig.Hash != EmptyHash {
		t.Errorf("path of %d bytes: %+v", len(long), l)
	}
	seen := 0
	must(t, r.Walk(ctx, "", func(e Entry) error {
		if e.Err == nil {
			seen++
		}
		return nil
	}))
	if seen != 16 {
		t.Errorf("walk named %d of 16", seen)
	}
	must(t, os.WriteFile(filepath.Join(dir, "old"), nil, 0o600))
	for _, ns := range []int64{-1, -1_500_000_000, 1<<32*1e9 + 1} {
		ts := unix.NsecToTimespec(ns)
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, "old"), []unix.Timespec{ts, ts}, 0))
		if l := r.Look(ctx, "old", Signature{}, StatMark{}); l.Sig.MTime != ns {
			t.Errorf("mtime %d is read as %d", ns, l.Sig.MTime)
		}
	}
}

func TestOpenBeneathRefuses(t *testing.T) {
	needRoot(t)
	r, dir := openTestRoot(t)
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600))
	must(t, os.Symlink(outside, filepath.Join(dir, "out")))
	must(t, os.Symlink("secret", filepath.Join(dir, "last")))
	must(t, unix.Mknod(filepath.Join(dir, "fifo"), unix.S_IFIFO|0o644, 0))
	must(t, unix.Mknod(filepath.Join(dir, "dev"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	for p, want := range map[Path]error{"out/secret": unix.ELOOP, "last": ErrKind, "fifo": ErrKind, "dev": ErrKind, "../x": ErrMount} {
		f, err := r.OpenBeneath(p, unix.O_RDONLY)
		if !errors.Is(err, want) {
			t.Errorf("open %s: %v, want %v", p, err, want)
		}
		if err == nil {
			f.Close()
		}
	}
}

func TestMountBeneath(t *testing.T) {
	needRoot(t)
	r, dir := openTestRoot(t)
	ctx := context.Background()
	must(t, os.MkdirAll(filepath.Join(dir, "a/mnt/sub"), 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "b"), 0o755))
	// A bind mount of the same file system: the device number does not tell.
	if err := unix.Mount(filepath.Join(dir, "b"), filepath.Join(dir, "a/mnt"), "", unix.MS_BIND, ""); err != nil {
		t.Skipf("needs to mount: %v", err)
	}
	defer unix.Unmount(filepath.Join(dir, "a/mnt"), unix.MNT_DETACH)
	for _, p := range []Path{"a/mnt", "a/mnt/sub", "a/mnt/none"} {
		if l := r.Look(ctx, p, Signature{}, StatMark{}); !errors.Is(l.Err, ErrMount) || l.Sig.Type != Unknown {
			t.Errorf("look at %s: %+v", p, l)
		}
	}
	got := walked(t, r, "")
	if want := []string{"a", "a/mnt!", "b"}; !slices.Equal(got, want) {
		t.Errorf("walk named %q, want %q", got, want)
	}
}

func walked(t *testing.T, r *Root, from Path) (names []string) {
	t.Helper()
	must(t, r.Walk(context.Background(), from, func(e Entry) error {
		n := string(e.Path)
		if e.Err != nil {
			n += "!"
		}
		names = append(names, n)
		if e.Path.Base() == "skipped" {
			return fs.SkipDir
		}
		return nil
	}))
	return names
}

func TestWalkOrder(t *testing.T) {
	r, dir := openTestRoot(t)
	for _, d := range []string{"a/x", "a.b", "a-c/skipped/deep", Private + "/staging", "z/" + Private} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(dir, "a/x/1"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "a/y"), nil, 0o600))
	must(t, os.Symlink("a", filepath.Join(dir, "l")))
	got := walked(t, r, "")
	// Component by component, not byte by byte: a comes before a-c and all of it.
	want := []string{"a", "a/x", "a/x/1", "a/y", "a-c", "a-c/skipped", "a.b", "l", "z", "z/.clsync"}
	if !slices.Equal(got, want) {
		t.Errorf("walk named %q, want %q", got, want)
	}
	if got := walked(t, r, "a/x"); !slices.Equal(got, []string{"a/x", "a/x/1"}) {
		t.Errorf("walk from a/x named %q", got)
	}
	if got := walked(t, r, "none/x"); got != nil {
		t.Errorf("walk from nothing named %q", got)
	}
	// A folder that goes while the walk is below it takes nothing along.
	got = nil
	must(t, r.Walk(context.Background(), "", func(e Entry) error {
		got = append(got, string(e.Path))
		if e.Path == "a/x/1" {
			return os.RemoveAll(filepath.Join(dir, "a"))
		}
		return nil
	}))
	if slices.Contains(got, "a/y") || !slices.Contains(got, "z") {
		t.Errorf("walk over a vanished folder named %q", got)
	}
}

func TestXattrsRoundTrip(t *testing.T) {
	needRoot(t)
	r, dir := openTestRoot(t)
	must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o600))
	pin, err := r.OpenBeneath("f", unix.O_PATH)
	must(t, err)
	defer pin.Close()
	acl := "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\x05\x00\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff"
	caps := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	first := EncodeXattrs([]Xattr{{"trusted.x", strings.Repeat("v", 3000)}, {"system.posix_acl_access", acl}, {"security.capability", caps}})
	second := EncodeXattrs([]Xattr{{"trusted.x", ""}, {"trusted.y", "\x00\xff"}})
	for _, want := range []Xattrs{first, second, ""} {
		must(t, r.SetXattrs(pin, want))
		if got, err := r.Xattrs(pin); err != nil || got != want {
			t.Errorf("attributes %q, %v; want %q", got, err, want)
		}
	}
	for _, n := range []string{"security.ima", "security.evm", "security.selinux", "system.nfs4_acl"} {
		if err := r.SetXattrs(pin, EncodeXattrs([]Xattr{{n, "x"}})); !errors.Is(err, ErrXattrs) {
			t.Errorf("%s was taken: %v", n, err)
		}
	}
}

func TestIdentity(t *testing.T) {
	needRoot(t)
	r, dir := openTestRoot(t)
	bare, err := r.Identity()
	must(t, err)
	must(t, r.StillThere(bare))
	must(t, r.WriteMarker("tree-1"))
	if err := r.StillThere(bare); !errors.Is(err, ErrRootChanged) {
		t.Errorf("another marker: %v", err)
	}
	id, err := r.Identity()
	must(t, err)
	if !id.Marked || id.Marker != "tree-1" {
		t.Errorf("identity %v", id)
	}
	must(t, r.StillThere(id))
	must(t, os.Rename(dir, dir+".away"))
	if err := r.StillThere(id); !errors.Is(err, ErrRootChanged) {
		t.Errorf("root renamed away: %v", err)
	}
	must(t, os.Mkdir(dir, 0o755))
	if err := r.StillThere(id); !errors.Is(err, ErrRootChanged) {
		t.Errorf("another folder: %v", err)
	}
	must(t, os.Remove(dir))
	must(t, os.Rename(dir+".away", dir))
	must(t, r.StillThere(id))
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("needs to mount: %v", err)
	}
	err = r.StillThere(id)
	must(t, unix.Unmount(dir, 0))
	if !errors.Is(err, ErrRootChanged) {
		t.Errorf("same folder by another mount: %v", err)
	}
	must(t, r.StillThere(id))
}

func TestPrivateFolder(t *testing.T) {
	needRoot(t)
	for name, spoil := range map[string]func(string) error{
		"open to others": func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.Chmod(p, 0o755)) },
		"foreign":        func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.Chown(p, 4711, 0)) },
		"file":           func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"link":           func(p string) error { return errors.Join(os.Mkdir(p+"2", 0o700), os.Symlink(p+"2", p)) },
	} {
		r, dir := openTestRoot(t)
		must(t, spoil(filepath.Join(dir, Private)))
		if f, err := r.OpenPrivate(); !errors.Is(err, ErrPrivate) {
			t.Errorf("%s: %v", name, err)
			f.Close()
		}
	}
	r, dir := openTestRoot(t)
	must(t, os.Chmod(dir, os.ModeSetgid|0o777))
	f, err := r.OpenPrivate()
	must(t, err)
	f.Close()
	f, err = r.OpenPrivate()
	must(t, err)
	f.Close()
}
