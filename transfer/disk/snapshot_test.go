package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// clones tells whether the file system of the bench can.
func (b *bench) clones() bool {
	b.t.Helper()
	src, err := os.Create(b.at("clone-src.tmp"))
	must(b.t, err)
	defer src.Close()
	dst, err := os.Create(b.at("clone-dst.tmp"))
	must(b.t, err)
	defer dst.Close()
	err = clone(dst, src)
	if err != nil && !errors.Is(err, ErrNoReflink) {
		b.t.Fatal(err)
	}
	return err == nil
}

// writing calls write again and again until the test has called stop, and at least
// once before it returns.
func writing(t *testing.T, write func(i int) error) (stop func()) {
	t.Helper()
	quit, begun := make(chan struct{}), make(chan struct{})
	var g sync.WaitGroup
	g.Go(func() {
		for i := 0; ; i++ {
			if err := write(i); err != nil {
				t.Errorf("write: %v", err)
			}
			if i == 0 {
				close(begun)
			}
			select {
			case <-quit:
				return
			default:
			}
		}
	})
	<-begun
	return func() { close(quit); g.Wait() }
}

// snapshot wants a snapshot whose look is what it holds, and returns its content.
func (b *bench) snapshot(id, p string) ([]byte, signature.Look) {
	b.t.Helper()
	l, err := b.tree.Snapshot(b.t.Context(), id, signature.Path(p))
	must(b.t, err)
	got, err := os.ReadFile(filepath.Join(b.dir, signature.Private, staging, id, content))
	must(b.t, err)
	if l.Sig.Size != int64(len(got)) || l.Sig.Hash.Sum != sha256.Sum256(got) {
		b.t.Fatalf("a look at %d bytes with hash %s; the snapshot has %d", l.Sig.Size, l.Sig.Hash, len(got))
	}
	return got, l
}

func (b *bench) staged() []string {
	b.t.Helper()
	names, err := list(b.tree.dirs[staging])
	must(b.t, err)
	return names
}

func TestSnapshotOfGrowing(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		b.write("log", strings.Repeat("what was there before\n", 150_000))
		must(t, os.Chown(b.at("log"), 12, 34))
		must(t, unix.Setxattr(b.at("log"), "user.color", []byte("red"), 0))
		f, err := os.OpenFile(b.at("log"), os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		defer f.Close()
		stop := writing(t, func(i int) error {
			_, err := fmt.Fprintf(f, "line %d\n", i)
			return err
		})
		defer stop()
		last := 0
		for range 5 {
			got, l := b.snapshot("s1", "log")
			if !strings.HasPrefix(b.read("log"), string(got)) {
				t.Fatalf("%d bytes are no beginning of the file", len(got))
			}
			if len(got) < last {
				t.Errorf("%d bytes after %d", len(got), last)
			}
			last = len(got)
			s := l.Sig
			xs, err := signature.DecodeXattrs(s.Xattrs)
			must(t, err)
			if s.Type != signature.File || s.Mode != 0o644 || s.UID != 12 || s.GID != 34 || s.MTime == 0 || len(xs) != 1 || xs[0].Name != "user.color" {
				t.Errorf("facts %+v", s)
			}
			live, err := os.Stat(b.at("log"))
			must(t, err)
			if l.Mark.Settled() || l.Mark.Ino != live.Sys().(*syscall.Stat_t).Ino {
				t.Errorf("mark %+v", l.Mark)
			}
			must(t, b.tree.RemoveBatch("s1"))
		}
	})
}

// blocks that carry generation and number, written in place from front to back.
func TestSnapshotOfRewritten(t *testing.T) {
	const size, count = 4096, 512
	block := func(gen, i int) []byte {
		return bytes.Repeat(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(gen)), uint32(i)), size/8)
	}
	eachFS(t, func(t *testing.T, b *bench) {
		b.write("f", "")
		f, err := os.OpenFile(b.at("f"), os.O_WRONLY, 0)
		must(t, err)
		defer f.Close()
		for i := range count {
			_, err := f.Write(block(0, i))
			must(t, err)
		}
		stop := writing(t, func(n int) error {
			_, err := f.WriteAt(block(1+n/count, n%count), int64(n%count)*size)
			return err
		})
		defer stop()
		clones, taken := b.clones(), 0
		for range 5 {
			l, err := b.tree.Snapshot(t.Context(), "s1", "f")
			if errors.Is(err, signature.ErrMoving) && !clones {
				if left := b.staged(); len(left) != 0 {
					t.Fatalf("left in staging: %q", left)
				}
				continue
			}
			must(t, err)
			taken++
			got, err := os.ReadFile(filepath.Join(b.dir, signature.Private, staging, "s1", content))
			must(t, err)
			if l.Sig.Size != size*count || l.Sig.Hash.Sum != sha256.Sum256(got) {
				t.Fatalf("a look at %d bytes with hash %s", l.Sig.Size, l.Sig.Hash)
			}
			first := int(binary.BigEndian.Uint32(got))
			older := 0
			for i := range count {
				switch have := got[i*size : (i+1)*size]; {
				case older == 0 && bytes.Equal(have, block(first, i)):
				case bytes.Equal(have, block(first-1, i)):
					older++
				default:
					t.Fatalf("block %d of %d is of a state that never was", i, first)
				}
			}
			must(t, b.tree.RemoveBatch("s1"))
		}
		if clones && taken != 5 {
			t.Errorf("%d snapshots of 5", taken)
		}
	})
}

func TestNoSnapshot(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		none := func(p string, want error) {
			t.Helper()
			if _, err := b.tree.Snapshot(t.Context(), "s1", signature.Path(p)); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", p, err, want)
			}
			if left := b.staged(); len(left) != 0 {
				t.Errorf("left in staging: %q", left)
			}
		}
		var st unix.Statfs_t
		must(t, unix.Statfs(b.dir, &st))
		b.write("huge", "")
		must(t, os.Truncate(b.at("huge"), int64(st.Blocks)*st.Bsize*6/10))
		none("huge", ErrNoRoom)
		b.write("one", "linked")
		must(t, os.Link(b.at("one"), b.at("two")))
		none("one", signature.ErrMoving)
		must(t, os.Mkdir(b.at("folder"), 0o755))
		none("folder", signature.ErrMoving)
		none("absent", os.ErrNotExist)

		// What has shrunk has not only grown.
		b.write("short", "short")
		src, err := os.Open(b.at("short"))
		must(t, err)
		defer src.Close()
		dst, err := os.Create(b.at("dst.tmp"))
		must(t, err)
		defer dst.Close()
		if _, err := beginning(t.Context(), src, dst, 6); !errors.Is(err, signature.ErrMoving) {
			t.Error(err)
		}
		if h, err := beginning(t.Context(), src, dst, 5); err != nil || h.Sum != sha256.Sum256([]byte("short")) {
			t.Error(h, err)
		}
	})
}

// A snapshot is served under the path it was asked for, also when a later one has
// taken its place.
func TestServeSnapshot(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		b.write("d.log", "moment")
		b.snapshot("s1", "d.log")
		b.write("d.log", "moment and more")
		want := map[signature.Path]Source{"d/d.log": {Snapshot: "s1"}, "other": {Snapshot: "s2"}, "removed": {Kept: "case/entry"}}
		s, found, err := b.tree.Serve("serve", want)
		must(t, err)
		if len(found) != 1 || !found["d/d.log"] {
			t.Errorf("found %v", found)
		}
		must(t, b.tree.RemoveBatch("s1"))
		if got, err := os.ReadFile(filepath.Join(b.dir, signature.Private, staging, "serve", "d/d.log")); string(got) != "moment" {
			t.Errorf("serves %q, %v", got, err)
		}
		must(t, s.Close())
		if s, found, err = b.tree.Serve("serve", want); s != nil || len(found) != 0 || err != nil {
			t.Errorf("serves %v, %v", found, err)
		}
		if left := b.staged(); len(left) != 0 {
			t.Errorf("left in staging: %q", left)
		}
		if _, _, err := b.tree.Serve("serve", map[signature.Path]Source{"p": {Snapshot: "../grace"}}); !errors.Is(err, ErrName) {
			t.Error(err)
		}
	})
}
