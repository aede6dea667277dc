package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// TestUserAtWork lets a local user save while peers' versions are applied. Every
// content that he has settled on is live, or kept, or he himself has replaced it:
// he saves by exchange, and so knows what he replaces.
func TestUserAtWork(t *testing.T) {
	if os.Geteuid() != 0 || mounts["ext4"] == "" {
		t.Skip("needs root and an ext4 loop image")
	}
	rest(t, 0)
	dir, err := os.MkdirTemp(mounts["ext4"], "user")
	must(t, err)
	defer os.RemoveAll(dir)
	b := newBench(t, dir, SyncEach)
	b.write("f", "first")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var saves, replaced []string
	var wg sync.WaitGroup
	wg.Go(func() { saves, replaced = saveAgainAndAgain(ctx, t, b) })
	outcomes := map[Outcome]int{}
	for ctx.Err() == nil {
		l := b.root.Look(context.Background(), "f", signature.Signature{}, signature.StatMark{})
		if l.Err != nil {
			continue
		}
		a := Apply{Path: "f", Target: file("peer"), Expect: l.Sig, Mark: l.Mark, Content: b.stage("x", "peer"), Keep: "c"}
		out, err := b.tree.Apply(context.Background(), []Apply{a}, SyncEach)
		must(t, err)
		if outcomes[out[0].Outcome]++; out[0].Outcome == Blocked {
			t.Fatalf("%+v", out[0])
		}
	}
	wg.Wait()
	_, err = b.tree.SweepGrace(context.Background())
	must(t, err)
	found := map[string]bool{b.read("f"): true}
	for _, s := range replaced {
		found[s] = true
	}
	met := 0
	for _, c := range b.kept() {
		text, err := os.ReadFile(c.File)
		must(t, err)
		if found[string(text)] = true; string(text) != "peer" {
			met++
		}
	}
	for _, s := range saves {
		if !found[s] {
			t.Errorf("lost: %s", s)
		}
	}
	t.Logf("%d saves, %d met by an apply, outcomes %v", len(saves), met, outcomes)
	if met == 0 || outcomes[Moved] == 0 || outcomes[Done] == 0 {
		t.Error("no race")
	}
	b.clean()
}

func saveAgainAndAgain(ctx context.Context, t *testing.T, b *bench) (saves, replaced []string) {
	for i := 0; ctx.Err() == nil; i++ {
		text := fmt.Sprintf("mine %d", i)
		if err := os.WriteFile(b.at("g"), []byte(text), 0o644); err != nil {
			t.Error(err)
			return saves, replaced
		}
		if err := unix.Renameat2(unix.AT_FDCWD, b.at("g"), unix.AT_FDCWD, b.at("f"), unix.RENAME_EXCHANGE); err != nil {
			t.Error(err)
			return saves, replaced
		}
		saves, replaced = append(saves, text), append(replaced, b.read("g"))
		if err := os.Remove(b.at("g")); err != nil {
			t.Error(err)
			return saves, replaced
		}
		select { // at work, not at war: some of the applies come to their end
		case <-ctx.Done():
		case <-time.After(time.Duration(i%7) * 500 * time.Microsecond):
		}
	}
	return saves, replaced
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

// TestFull: a full file system blocks what does not fit, and nothing else.
func TestFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Skipf("needs to mount: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	b := newBench(t, dir, SyncEach)
	b.write("big", strings.Repeat("x", 2<<20))
	l := b.look("big")
	small := file("small")
	out := b.apply(
		Apply{Path: "copy", Target: l.Sig, Content: Content{CopyFrom: "big"}},
		Apply{Path: "small", Target: small, Content: b.stage("x", "small")},
	)
	if out[0].Outcome != Blocked || !errors.Is(out[0].Err, unix.ENOSPC) || out[0].Look.Sig.Type != signature.Absent {
		t.Errorf("%+v", out[0])
	}
	if out[1].Outcome != Done || out[1].Look.Sig != small {
		t.Errorf("%+v", out[1])
	}
	b.clean()
	// Read-only: every path says so, and nothing has changed.
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Skipf("needs to remount: %v", err)
	}
	r, err := b.tree.Apply(context.Background(), []Apply{{Path: "small", Target: gone, Expect: small, Mark: out[1].Look.Mark}}, SyncEach)
	if !errors.Is(err, unix.EROFS) || r[0].Outcome != Blocked || b.read("small") != "small" {
		t.Errorf("%v, %+v", err, r)
	}
}

// TestMountInside: a mount beneath the root is not the tree's.
func TestMountInside(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		must(t, os.MkdirAll(b.at("d/m"), 0o755))
		if err := unix.Mount("tmpfs", b.at("d/m"), "tmpfs", 0, "size=1m"); err != nil {
			t.Skipf("needs to mount: %v", err)
		}
		defer unix.Unmount(b.at("d/m"), unix.MNT_DETACH)
		folder := signature.Signature{Type: signature.Folder, Facts: signature.Facts{Mode: 0o755}}
		for _, a := range []Apply{
			{Path: "d/m/f", Target: file("")},
			{Path: "d/m", Target: file(""), Expect: folder},
			{Path: "d/m", Target: kind(signature.Folder), Expect: folder},
			{Path: "d/m", Target: gone, Expect: folder},
			{Path: "d", Target: gone, Expect: folder},
			{Path: "d", Target: file(""), Expect: folder},
		} {
			r := b.apply(a)[0]
			want := Blocked
			if a.Path == "d" {
				want = NotEmpty
			}
			if r.Outcome != want {
				t.Errorf("%s to %s: %s, %v", a.Path, a.Target.Type, r.Outcome, r.Err)
			}
		}
		b.clean()
	})
}
