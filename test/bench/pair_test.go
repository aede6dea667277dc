package bench

import (
	"os"
	"path/filepath"
	"testing"
)

// A pair is two trees and something that carries changes from the first to the
// second.
type pair interface {
	name() string
	trees() (a, b string)
	// beside is a folder on the first tree's file system.
	beside() string
	// rest waits until nothing is under way.
	rest()
	// exact tells whether folders' times are carried as well.
	exact() bool
	close()
}

// layout is the folders of a pair.
type layout struct{ dir string }

func newLayout(b *testing.B, on string) layout {
	b.Helper()
	dir, err := os.MkdirTemp(on, "p-")
	must(b, err)
	l := layout{dir}
	x, y := l.trees()
	for _, d := range []string{x, y, l.beside()} {
		must(b, os.MkdirAll(d, 0o755))
	}
	return l
}

func (l layout) trees() (string, string) {
	return filepath.Join(l.dir, "a", "tree"), filepath.Join(l.dir, "b", "tree")
}

func (l layout) beside() string { return filepath.Join(l.dir, "a", "beside") }

func must(b testing.TB, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// A place is a kind of file system that the trees are on.
type place struct {
	name string
	make func(b *testing.B) string // an empty folder on it, removed at the end
}

var (
	onTmpfs = place{"tmpfs", func(b *testing.B) string { return scratch(b, "/dev/shm") }}
	onDisk  = place{"disk", func(b *testing.B) string { return scratch(b, os.TempDir()) }}
)

func scratch(b *testing.B, on string) string {
	b.Helper()
	dir, err := os.MkdirTemp(on, "clsync-bench-")
	if err != nil {
		b.Skipf("needs a folder in %s: %v", on, err)
	}
	b.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			b.Errorf("clean up: %v", err)
		}
	})
	return dir
}

// contenders are the makers of all pairs, the floors first.
func contenders(o options) []func(b *testing.B, on string) pair {
	return []func(b *testing.B, on string) pair{
		func(b *testing.B, on string) pair { return newMirror(b, on, "cp", copyBatch) },
		func(b *testing.B, on string) pair { return newMirror(b, on, "rsync", rsyncBatch) },
		func(b *testing.B, on string) pair { return newDaemons(b, on, o) },
	}
}
