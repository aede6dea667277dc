package bench

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/test/compare"
)

// until asks again and again until yes, and returns how long that took. It is the
// same for all that are measured, and its pause is small beside what they take.
func until(b *testing.B, begin time.Time, what string, yes func() bool) time.Duration {
	b.Helper()
	for !yes() {
		if time.Since(begin) > patience {
			b.Fatalf("%s: not in %v", what, patience)
		}
		time.Sleep(200 * time.Microsecond)
	}
	return time.Since(begin)
}

// names counts what stands beneath a folder, temporary names of rsync left out.
func names(dir string) (n int) {
	all, err := os.ReadDir(dir)
	if err != nil {
		return 0 // not there yet
	}
	for _, e := range all {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		n++
		if e.IsDir() {
			n += names(filepath.Join(dir, e.Name()))
		}
	}
	return n
}

// same waits until the second tree is as the first, which is at rest, and returns
// how long that took from begin. count is how many names are in the tree then.
func same(b *testing.B, p pair, begin time.Time, count int) time.Duration {
	b.Helper()
	x, y := p.trees()
	for names(y) != count {
		if time.Since(begin) > patience {
			b.Fatalf("%s: %d names of %d in %v", p.name(), names(y), count, patience)
		}
		time.Sleep(2 * time.Millisecond)
	}
	want, err := compare.Scan(x, compare.Facts)
	must(b, err)
	for {
		took := time.Since(begin)
		got, err := compare.Scan(y, compare.Facts)
		must(b, err)
		left := differences(p, want, got)
		if len(left) == 0 {
			equal(b, p)
			return took
		}
		if took > patience {
			b.Fatalf("%s: after %v %v differs, and %d more", p.name(), took, left[0], len(left)-1)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// differences leaves out what a mirror does not promise.
func differences(p pair, a, b compare.Tree) []compare.Difference {
	ds := compare.Diff(a, b)
	if p.exact() {
		return ds
	}
	kept := ds[:0]
	for _, d := range ds {
		if e := a[d.Path]; d.Kind == compare.MTime && e != nil && e.Type == unix.S_IFDIR {
			continue
		}
		if d.Kind != compare.Holes {
			kept = append(kept, d)
		}
	}
	return kept
}

// equal fails unless the contents are the same too.
func equal(b *testing.B, p pair) {
	b.Helper()
	x, y := p.trees()
	want, err := compare.Scan(x, compare.Contents)
	must(b, err)
	got, err := compare.Scan(y, compare.Contents)
	must(b, err)
	if left := differences(p, want, got); len(left) > 0 {
		b.Fatalf("%s: %v differs in the end, and %d more", p.name(), left[0], len(left)-1)
	}
}

// fill writes n files of 1 KiB, a hundred to a folder, and returns how many names
// that makes.
func fill(b testing.TB, dir string, n int) (count int) {
	b.Helper()
	content := []byte(strings.Repeat("0123456789abcde\n", 64))
	for i := range n {
		folder := filepath.Join(dir, "d"+strconv.Itoa(i/100))
		if i%100 == 0 {
			must(b, os.MkdirAll(folder, 0o755))
			count++
		}
		copy(content, strconv.Itoa(i)+"#"+filepath.Base(dir)+"#")
		must(b, os.WriteFile(filepath.Join(folder, "f"+strconv.Itoa(i)), content, 0o644))
		count++
	}
	return count
}
