package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// TestFlipper lets a local user exchange a folder on the path with a symlink to a
// victim outside, as fast as he can.
func TestFlipper(t *testing.T) {
	if os.Geteuid() != 0 || mounts["tmpfs"] == "" {
		t.Skip("needs root and a tmpfs")
	}
	base, err := os.MkdirTemp(mounts["tmpfs"], "flip")
	must(t, err)
	defer os.RemoveAll(base)
	dir, victim := filepath.Join(base, "tree"), filepath.Join(base, "victim")
	must(t, os.MkdirAll(filepath.Join(victim, "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(victim, "sub/f"), []byte("untouched"), 0o600))
	must(t, os.MkdirAll(filepath.Join(dir, "a/sub"), 0o755))
	must(t, os.Symlink(victim, filepath.Join(dir, "l")))
	snapshot := func() map[string]signature.Look {
		t.Helper()
		r, err := signature.OpenRoot(victim, signature.LookConfig{})
		must(t, err)
		defer r.Close()
		out := map[string]signature.Look{}
		must(t, r.Walk(context.Background(), "", func(e signature.Entry) error {
			l := r.Look(context.Background(), e.Path, signature.Signature{}, signature.StatMark{})
			l.Mark.Looked = 0
			out[string(e.Path)] = l
			return nil
		}))
		return out
	}
	before := snapshot()
	b := newBench(t, dir, SyncEach)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	flips := 0
	wg.Go(func() {
		a, l := []byte(filepath.Join(dir, "a")), filepath.Join(dir, "l")
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, string(a), unix.AT_FDCWD, l, unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
			flips++
		}
	})
	outcomes := map[Outcome]int{}
	expect := signature.Signature{}
	mark := signature.StatMark{}
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		out, err := b.tree.Apply(context.Background(), []Apply{
			{Path: "a/sub/f", Target: file("one"), Content: b.stage("x", "one"), Expect: expect, Mark: mark},
			{Path: "a/sub/d", Target: kind(signature.Folder)},
			{Path: "a/sub/d", Target: gone, Expect: kind(signature.Folder)},
			{Path: "a/sub/f", Target: gone, Expect: file("one")},
			{Path: "a/sub/f", Target: gone, Expect: file("untouched")},
			{Path: "a/sub", Target: signature.Signature{Type: signature.Folder, Facts: signature.Facts{Mode: 0o700}}, Expect: signature.Signature{Type: signature.Folder, Facts: signature.Facts{Mode: 0o755}}},
		}, SyncEach)
		must(t, err)
		for _, r := range out {
			outcomes[r.Outcome]++
		}
		must(t, b.tree.RemoveBatch("b1"))
	}
	close(stop)
	wg.Wait()
	t.Logf("%d exchanges, outcomes %v", flips, outcomes)
	if flips < 1000 || outcomes[Done] == 0 || outcomes[NoParent] == 0 {
		t.Errorf("no race: %d exchanges, outcomes %v", flips, outcomes)
	}
	after := snapshot()
	if len(after) != len(before) {
		t.Errorf("the victim has %d paths, had %d", len(after), len(before))
	}
	for p, l := range before {
		if after[p].Sig != l.Sig || !after[p].Mark.Same(l.Mark) {
			t.Errorf("victim's %s: %+v, was %+v", p, after[p], l)
		}
	}
}

// TestUserAtWork lets a local user save, append and delete while peers' versions
// are applied: every content he has settled on is live or kept.
func TestUserAtWork(t *testing.T) {
	if os.Geteuid() != 0 || mounts["ext4"] == "" {
		t.Skip("needs root and an ext4 loop image")
	}
	rest(t, 0)
	dir, err := os.MkdirTemp(mounts["ext4"], "user")
	must(t, err)
	defer os.RemoveAll(dir)
	b := newBench(t, dir, SyncEach)
	const rounds = 300
	saved := make(chan string, rounds)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(saved)
		for i := range rounds {
			text := "mine " + time.Now().String()
			if err := os.WriteFile(b.at("g"), []byte(text), 0o644); err != nil {
				t.Error(err)
				return
			}
			if err := os.Rename(b.at("g"), b.at("f")); err != nil {
				t.Error(err)
				return
			}
			saved <- text
			if i%8 == 0 {
				time.Sleep(time.Millisecond) // let the applies come in between
			}
		}
	})
	ctx := context.Background()
	seen := map[string]bool{} // contents that an apply was told to replace, or that were kept
	done, last := false, ""
	all := map[string]bool{}
	for !done {
		l := b.root.Look(ctx, "f", signature.Signature{}, signature.StatMark{})
		if l.Err == nil && l.Sig.Exists() {
			a := Apply{Path: "f", Target: file("peer"), Expect: l.Sig, Mark: l.Mark, Content: b.stage("x", "peer"), Keep: "c"}
			out, err := b.tree.Apply(ctx, []Apply{a}, SyncEach)
			must(t, err)
			if o := out[0].Outcome; o != Done && o != Moved && o != Busy {
				t.Fatalf("%+v", out[0])
			}
		}
		for more := true; more; {
			select {
			case s, ok := <-saved:
				if done, more = !ok, ok; ok {
					all[s], last = true, s
				}
			default:
				more = false
			}
		}
	}
	wg.Wait()
	if _, err := b.tree.SweepGrace(ctx); err != nil {
		t.Fatal(err)
	}
	for _, c := range b.kept() {
		text, err := os.ReadFile(c.File)
		must(t, err)
		seen[string(text)] = true
	}
	live := b.read("f")
	if live != last && !seen[last] {
		t.Errorf("the last save is neither live nor kept; live: %s", live)
	}
	kept := 0
	for s := range all {
		if seen[s] {
			kept++
		}
	}
	t.Logf("%d of %d saves were met by an apply and kept", kept, len(all))
	if kept == 0 {
		t.Error("no race: no save was met")
	}
	b.clean()
}

func TestSweepStaging(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: devices")
	}
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "f"), nil, 0o600))
	b := newBench(t, t.TempDir(), SyncEach)
	for _, id := range []string{"old", "kept"} {
		d, err := b.tree.Batch(id)
		must(t, err)
		must(t, os.MkdirAll(filepath.Join(d, "a/b"), 0o700))
		must(t, os.Symlink(outside, filepath.Join(d, "a/l")))
		must(t, unix.Mkfifo(filepath.Join(d, "a/b/p"), 0o600))
	}
	must(t, os.Symlink(outside, b.at(".clsync/staging/link")))
	must(t, b.tree.Sweep(func(id string) bool { return id == "kept" }))
	names, err := list(b.tree.dirs[staging])
	must(t, err)
	if len(names) != 1 || names[0] != "kept" {
		t.Errorf("left %q", names)
	}
	must(t, b.tree.RemoveBatch("kept"))
	must(t, b.tree.RemoveBatch("kept"))
	if _, err := os.Stat(filepath.Join(outside, "f")); err != nil {
		t.Error(err)
	}
	for _, id := range []string{"", ".", "..", "a/b", ".hidden", "a\x00"} {
		if _, err := b.tree.Batch(id); !errors.Is(err, ErrName) {
			t.Errorf("batch %q: %v", id, err)
		}
		if err := b.tree.RemoveBatch(id); !errors.Is(err, ErrName) {
			t.Errorf("remove batch %q: %v", id, err)
		}
	}
}

// TestUnmount: between batches nothing keeps the tree's file system busy.
func TestUnmount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("needs to mount: %v", err)
	}
	root, err := signature.OpenRoot(dir, signature.LookConfig{})
	must(t, err)
	must(t, root.WriteMarker("id"))
	id, err := root.Identity()
	must(t, err)
	tree, err := Open(root, Config{})
	must(t, err)
	_, err = tree.Apply(context.Background(), []Apply{{Path: "f", Target: file("")}}, SyncEach)
	must(t, err)
	must(t, tree.Close())
	must(t, root.StillThere(id))
	must(t, root.Close())
	if err := unix.Unmount(dir, 0); err != nil {
		unix.Unmount(dir, unix.MNT_DETACH)
		t.Fatalf("after everything was closed: %v", err)
	}
	if err := root.StillThere(id); !errors.Is(err, signature.ErrRootChanged) {
		t.Errorf("unmounted: %v", err)
	}
}
