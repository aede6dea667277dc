package bench

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/test/cluster"
)

// onXFS can clone files: a change in a big one is patched into a clone.
var onXFS = place{"xfs", func(b *testing.B) string {
	cluster.Need(b, "mkfs.xfs")
	dir := filepath.Join(scratch(b, os.TempDir()), "fs")
	d, err := cluster.NewDisk(cluster.XFS, dir, 10<<30)
	must(b, err)
	b.Cleanup(func() {
		if err := d.Unmount(); err != nil {
			b.Errorf("unmount: %v", err)
		}
	})
	return dir
}}

// BenchmarkBigFile: a big file that comes in whole, then a change in its middle,
// then its new name.
func BenchmarkBigFile(b *testing.B) {
	for _, at := range []place{onTmpfs, onDisk, onXFS} {
		b.Run(at.name, func(b *testing.B) {
			var table report
			for range b.N {
				on := at.make(b)
				for _, contender := range contenders(options{gossip: "fast = true", tree: "big_delay = \"0s\"\n"}) {
					bigFile(b, contender(b, on), &table)
				}
			}
			table.print("one big file, " + at.name)
		})
	}
}

func bigFile(b *testing.B, p pair, table *report) {
	s := sized()
	x, y := p.trees()
	made := filepath.Join(p.beside(), "big")
	random := rand.NewChaCha8([32]byte{1})
	f, err := os.Create(made)
	must(b, err)
	_, err = io.CopyN(f, random, s.big)
	must(b, err)
	must(b, f.Close())
	p.rest()

	cross := crossed(p)
	begin := time.Now()
	must(b, os.Rename(made, filepath.Join(x, "big")))
	table.add("new", "s", p.name(), seconds(arrived(b, p, begin, "big")))
	p.rest()
	cross.note(table, "new: bytes on the wire")

	change := make([]byte, s.changed)
	_, _ = random.Read(change) // never fails
	cross = crossed(p)
	begin = time.Now()
	g, err := os.OpenFile(filepath.Join(x, "big"), os.O_WRONLY, 0)
	must(b, err)
	_, err = g.WriteAt(change, s.big/2)
	must(b, err)
	must(b, g.Close())
	until(b, begin, p.name()+" change", func() bool { return holds(filepath.Join(y, "big"), change, s.big/2) })
	table.add("changed in its middle", "s", p.name(), seconds(arrived(b, p, begin, "big")))
	p.rest()
	cross.note(table, "changed: bytes on the wire")
	equal(b, p)

	begin = time.Now()
	must(b, os.Rename(filepath.Join(x, "big"), filepath.Join(x, "great")))
	until(b, begin, "new name", func() bool { return gone(filepath.Join(y, "big")) })
	table.add("renamed", "s", p.name(), seconds(arrived(b, p, begin, "great")))
	equal(b, p)
	p.close()
	must(b, os.RemoveAll(x))
	must(b, os.RemoveAll(y))
}

// arrived waits until a file has size and time as on the first side.
func arrived(b *testing.B, p pair, begin time.Time, name string) time.Duration {
	b.Helper()
	x, y := p.trees()
	want, err := os.Lstat(filepath.Join(x, name))
	must(b, err)
	return until(b, begin, p.name()+" "+name, func() bool {
		got, err := os.Lstat(filepath.Join(y, name))
		return err == nil && got.Size() == want.Size() && got.ModTime().Equal(want.ModTime())
	})
}

// holds tells whether a file has these bytes at that place.
func holds(path string, want []byte, at int64) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, i := range []int{0, len(want) - 16} {
		got := make([]byte, 16)
		if _, err := unix.Pread(int(f.Fd()), got, at+int64(i)); err != nil || !bytes.Equal(got, want[i:i+16]) {
			return false
		}
	}
	return true
}

// A crossing is what has crossed the wire since it was made.
type crossing struct {
	d      *daemons
	before int64
}

func crossed(p pair) crossing {
	d, ok := p.(*daemons)
	if !ok {
		return crossing{}
	}
	n, _ := d.wire.bytes() // note asks again, and leaves the row out
	return crossing{d, n}
}

func (c crossing) note(table *report, what string) {
	if c.d == nil {
		return
	}
	if n, ok := c.d.wire.bytes(); ok {
		table.add(what, "MiB", c.d.name(), float64(n-c.before)/(1<<20))
	}
}
