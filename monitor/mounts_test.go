//go:build linux

package monitor

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// Own changes are dropped, those of others are not; a folder that goes is hinted
// whoever removed it.
func TestOwnChanges(t *testing.T) {
	needRoot(t, "to mark file systems")
	root := mkdir(t, fileSystem(t), "tree")
	for _, d := range []string{"a", "gone", "old", signature.Private + "/staging/new"} {
		mkdir(t, root, d)
	}
	r := start(t, Config{Root: root, Backend: Fanotify, Self: func(pid int) bool { return pid == os.Getpid() }})
	put(t, root+"/a/own", "x")
	put(t, root+"/a/shared", "x")
	mkdir(t, root, "made/by/us")
	must(t, os.Remove(root+"/gone"))
	must(t, os.Rename(root+"/old", root+"/renamed"))
	must(t, os.Rename(root+"/"+signature.Private+"/staging/new", root+"/new"))
	sh(t, root, "echo y >> a/shared; mkdir theirs")
	r.awaitHint("a/shared")
	r.awaitDeep("theirs")
	for _, p := range []signature.Path{"gone", "old", "renamed"} {
		r.awaitDeep(p)
	}
	for _, p := range []signature.Path{"a/own", "a", "made", "made/by/us", "new"} {
		if r.covers(p) {
			t.Errorf("%q was hinted", p)
		}
	}
}

// What others did in a folder that we then removed is seen, though the folder's
// handle leads nowhere any more.
func TestOthersInAFolderThatWeRemove(t *testing.T) {
	needRoot(t, "to mark file systems")
	root := mkdir(t, fileSystem(t), "tree")
	put(t, filepath.Join(mkdir(t, root, "a/b"), "f"), "x")
	m := open(t, Config{Root: root, Backend: Fanotify, Self: func(pid int) bool { return pid == os.Getpid() }})
	sh(t, root, "rm a/b/f") // not read before
	must(t, os.Remove(root+"/a/b"))
	must(t, os.Remove(root+"/a"))
	read(t, m, root).awaitHint("a/b/f")
}

// The tree's file system can be unmounted while it is watched, Run survives that,
// and when it is mounted again changes are seen again.
func TestUnmountedUnderneath(t *testing.T) {
	for _, backend := range []string{Fanotify, Fsnotify} {
		t.Run(backend, func(t *testing.T) {
			img, dir := image(t, "ext4"), t.TempDir()
			loop(t, img, dir, "")
			mkdir(t, dir, "a/b")
			r := start(t, Config{Root: dir, Backend: backend})
			put(t, dir+"/a/b/f", "x")
			r.awaitHint("a/b/f")
			r.fence()
			r.forget()
			r.await("plain umount", func() bool { return unix.Unmount(dir, 0) == nil })
			r.awaitDeep("")

			r.forget()
			loop(t, img, dir, "")
			r.awaitDeep("")
			r.fence()
			r.forget()
			put(t, dir+"/a/b/f", "y")
			r.awaitHint("a/b/f")
			r.fence()
			must(t, r.m.Close())
			must(t, unix.Unmount(dir, 0))
		})
	}
}

// Whatever takes the place of the tree's file system can be unmounted as well:
// nothing keeps a descriptor of it.
func TestOthersMountedInPlace(t *testing.T) {
	backends(t, func(t *testing.T, cfg Config) {
		needRoot(t, "to mount")
		r := start(t, cfg)
		for range 10 {
			r.forget()
			must(t, unix.Mount("tmpfs", cfg.Root, "tmpfs", 0, "size=1m"))
			r.awaitDeep("")
			r.forget()
			sh(t, cfg.Root, "mkdir -p a/b; echo x > a/b/f; rm -r a")
			r.await("plain umount", func() bool { return unix.Unmount(cfg.Root, 0) == nil })
			r.awaitDeep("")
		}
		put(t, cfg.Root+"/f", "x")
		r.awaitHint("f")
	})
}

// Another file system beneath the root is part of the tree, from the moment it is
// mounted.
func TestMountBeneath(t *testing.T) {
	needRoot(t, "to mount")
	backends(t, func(t *testing.T, cfg Config) {
		early, late := mkdir(t, cfg.Root, "early"), mkdir(t, cfg.Root, "x y/late")
		mountAt(t, "tmpfs", "tmpfs", early, 0, "size=1m")
		r := start(t, cfg)
		put(t, filepath.Join(mkdir(t, early, "a/b"), "f"), "x")
		r.awaitHint("early/a/b/f")
		mountAt(t, "tmpfs", "tmpfs", late, 0, "size=1m")
		r.awaitDeep("x y/late")
		r.fence()
		r.forget()
		put(t, filepath.Join(mkdir(t, late, "a/b"), "f"), "x")
		r.awaitHint("x y/late/a/b/f")
		r.forget()
		must(t, unix.Unmount(late, 0))
		r.awaitDeep("x y/late")
		put(t, late+"/f", "x")
		r.awaitHint("x y/late/f")
	})
}

// While a watch is set, a folder that is watched under another name takes the
// place. That made fsnotify panic.
func TestTakenWhileAdding(t *testing.T) {
	needRoot(t, "to mount")
	root := mkdir(t, fileSystem(t), "tree")
	mkdir(t, root, "a")
	mkdir(t, root, "b")
	m := open(t, Config{Root: root, Backend: Fsnotify})
	b := m.backend.(*recursive)
	f := b.folder.find("b")
	mountAt(t, root+"/a", "", root+"/b", unix.MS_BIND, "") // without an event
	if _, err := b.watch(f, "b", f.id, nil); err != errMoved {
		t.Errorf("watch = %v", err)
	}
	must(t, unix.Unmount(root+"/b", 0))
	b.arm(t.Context(), f) // the next try
	r := read(t, m, root)
	put(t, root+"/a/f", "x")
	put(t, root+"/b/f", "x")
	r.awaitHint("a/f")
	r.awaitHint("b/f")
}

// A part of the same file system that is bound into the tree changes under its
// other name.
func TestBound(t *testing.T) {
	needRoot(t, "to mount")
	backends(t, func(t *testing.T, cfg Config) {
		cfg.PollUnwatched = 50 * time.Millisecond
		source := mkdir(t, filepath.Dir(cfg.Root), "source/in")
		mountAt(t, source, "", mkdir(t, cfg.Root, "bound"), unix.MS_BIND, "")
		mkdir(t, cfg.Root, "twice/k")
		mountAt(t, cfg.Root+"/twice", "", mkdir(t, cfg.Root, "again"), unix.MS_BIND, "")
		put(t, filepath.Dir(source)+"/resolv.conf", "x")
		put(t, cfg.Root+"/resolv.conf", "")
		mountAt(t, filepath.Dir(source)+"/resolv.conf", "", cfg.Root+"/resolv.conf", unix.MS_BIND, "")
		r := start(t, cfg)
		put(t, filepath.Join(mkdir(t, source, "a"), "f"), "x")
		r.awaitHint("bound/a/f")
		put(t, filepath.Dir(source)+"/resolv.conf", "y")
		r.awaitHint("resolv.conf")
		put(t, filepath.Dir(source)+"/outside", "x")
		put(t, cfg.Root+"/twice/k/f", "x")
		r.awaitHint("twice/k/f")
		r.awaitHint("again/k/f")
	})
}

// The root itself is a bind mount of a folder elsewhere.
func TestBoundRoot(t *testing.T) {
	needRoot(t, "to mount")
	backends(t, func(t *testing.T, cfg Config) {
		source := mkdir(t, filepath.Dir(cfg.Root), "source/in")
		mountAt(t, source, "", cfg.Root, unix.MS_BIND, "")
		r := start(t, cfg)
		put(t, filepath.Join(mkdir(t, source, "a"), "f"), "x")
		r.awaitHint("a/f")
		put(t, cfg.Root+"/a/g", "x")
		r.awaitHint("a/g")
		must(t, os.Rename(source+"/a", filepath.Dir(source)+"/a"))
		r.awaitDeep("a")
		r.fence()
		r.forget()
		put(t, filepath.Dir(source)+"/a/g", "y")
		r.fence()
		if r.covers("a/g") {
			t.Error("a change outside was hinted")
		}
	})
}

// The path to the root changes: the owner notices that on its own, and if it is
// changed back the monitor is as good as before.
func TestRootRenamed(t *testing.T) {
	backends(t, func(t *testing.T, cfg Config) {
		cfg.PollUnwatched = 50 * time.Millisecond
		mkdir(t, cfg.Root, "a")
		r := start(t, cfg)
		must(t, os.Rename(cfg.Root, cfg.Root+".old"))
		r.awaitDeep("")
		put(t, cfg.Root+".old/a/f", "x")
		must(t, os.Rename(cfg.Root+".old", cfg.Root))
		r.awaitHint("a/f")
	})
}

// Where file systems have no handles, or several to one mark, auto says why it
// does without fanotify.
func TestAutoFallsBack(t *testing.T) {
	t.Run("overlay", func(t *testing.T) {
		needRoot(t, "to mount")
		base := fileSystem(t)
		root := mkdir(t, base, "merged")
		lower, upper, work := mkdir(t, base, "lower/low"), mkdir(t, base, "upper"), mkdir(t, base, "work")
		err := unix.Mount("overlay", root, "overlay", 0, "lowerdir="+filepath.Dir(lower)+",upperdir="+upper+",workdir="+work)
		if err != nil {
			t.Skipf("needs overlayfs: %v", err)
		}
		t.Cleanup(func() { must(t, unix.Unmount(root, unix.MNT_DETACH)) })
		fallback(t, root, "low")
	})
	t.Run("btrfs subvolume", func(t *testing.T) {
		img, dir := image(t, "btrfs"), t.TempDir()
		loop(t, img, dir, "")
		sh(t, dir, "btrfs subvolume create sub >/dev/null; mkdir sub/low")
		sub := t.TempDir()
		loop(t, img, sub, ",subvol=sub")
		fallback(t, sub, "low")
	})
}

func fallback(t *testing.T, root, dir string) {
	t.Helper()
	r := start(t, Config{Root: root})
	if r.m.Backend() != Fsnotify || !strings.HasPrefix(r.m.Reason(), "fanotify: ") {
		t.Errorf("backend %q because of %q", r.m.Backend(), r.m.Reason())
	}
	t.Log(r.m.Reason())
	put(t, filepath.Join(mkdir(t, root, dir, "a"), "f"), "x")
	r.awaitHint(signature.Path(dir + "/a/f"))
}

// A subvolume within a tree on the top level.
func TestNestedSubvolume(t *testing.T) {
	img, dir := image(t, "btrfs"), t.TempDir()
	loop(t, img, dir, "")
	if _, err := exec.LookPath("btrfs"); err != nil {
		t.Skip("needs the btrfs program")
	}
	sh(t, dir, "btrfs subvolume create sub >/dev/null; mkdir sub/a")
	r := start(t, Config{Root: dir})
	put(t, dir+"/sub/a/f", "x")
	r.awaitHint("sub/a/f")
	sh(t, dir, "btrfs subvolume create sub/two >/dev/null; mkdir sub/two/b; echo > sub/two/b/f")
	r.awaitHint("sub/two/b/f")
}

// A file that is written without its name being known, as an NFS server does after
// a restart: nobody can say where it is, so all is looked at.
func TestWrittenByHandle(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			img, dir := image(t, kind), t.TempDir()
			loop(t, img, dir, "")
			put(t, filepath.Join(mkdir(t, dir, "a"), "f"), "x")
			h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, dir+"/a/f", 0)
			must(t, err)
			must(t, unix.Unmount(dir, 0))
			loop(t, img, dir, "")
			r := start(t, Config{Root: dir, Backend: Fanotify, PollUnwatched: 50 * time.Millisecond})
			at, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			must(t, err)
			fd, err := unix.OpenByHandleAt(at, h, unix.O_WRONLY)
			must(t, err)
			_, err = unix.Write(fd, []byte("yy"))
			must(t, err)
			must(t, unix.Close(fd))
			must(t, unix.Close(at))
			r.awaitHint("a/f")
		})
	}
}

func TestParseMounts(t *testing.T) {
	const table = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:30 / /srv\040x rw - tmpfs tmpfs rw
31 30 0:31 /sub /srv\040x/tree rw shared:2 master:1 - xfs /dev/a\134b rw
32 31 0:32 / /srv\040x/tree/a\012b rw - tmpfs none rw
33 31 0:33 / /srv\040x/treeless rw - tmpfs none rw
34 31 0:34 / /srv\040x/tree rw - tmpfs none rw
short line
`
	a := mount{"32", "0:32", "/", "/srv x/tree/a\nb", "tmpfs"}
	home := mount{"34", "0:34", "/", "/srv x/tree", "tmpfs"} // on top of 31
	want := map[mount]string{a: "a\nb", home: ""}
	if got := parseMounts([]byte(table), "/srv x/tree"); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := parseMounts([]byte(table), "/"); len(got) != 6 || got[a] != "srv x/tree/a\nb" {
		t.Errorf("of /: %v", got)
	}
}
