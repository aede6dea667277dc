package bench

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkSmallChange: from a system call on one side until its effect shows on
// the other, after a pause in which everything has come to rest.
func BenchmarkSmallChange(b *testing.B) {
	for _, at := range []place{onTmpfs, onDisk} {
		b.Run(at.name, func(b *testing.B) {
			var table report
			for range b.N {
				on := at.make(b)
				for _, contender := range contenders(options{gossip: "fast = true"}) {
					smallChanges(b, contender(b, on), &table)
				}
			}
			table.target("create p50", "under 80 ms")
			table.print("one small change, " + at.name)
		})
	}
}

func smallChanges(b *testing.B, p pair, table *report) {
	s := sized()
	x, y := p.trees()
	for _, t := range []string{"sub", "sub/deep"} {
		must(b, os.Mkdir(filepath.Join(x, t), 0o755))
	}
	until(b, time.Now(), "folders", func() bool { return names(y) == 2 })
	p.rest()

	random := rand.New(rand.NewPCG(1, 2)) // the same pauses for all
	each := func(what string, n int, change func(i int) error, shows func(i int) bool) {
		var took []time.Duration
		for i := range n {
			time.Sleep(30*time.Millisecond + time.Duration(random.Int64N(int64(40*time.Millisecond))))
			begin := time.Now()
			must(b, change(i))
			took = append(took, until(b, begin, p.name()+" "+what, func() bool { return shows(i) }))
		}
		table.took(what, p.name(), took)
		p.rest()
	}
	path := func(tree, kind string, i int) string {
		return filepath.Join(tree, "sub", "deep", fmt.Sprintf("%s-%d", kind, i))
	}
	content := func(i int) string { return fmt.Sprintf("content %d of a small file\n", i) }
	each("create", s.creates,
		func(i int) error { return os.WriteFile(path(x, "f", i), []byte(content(i)), 0o644) },
		func(i int) bool {
			got, err := os.ReadFile(path(y, "f", i))
			return err == nil && string(got) == content(i)
		})
	each("overwrite", s.others,
		func(i int) error { return os.WriteFile(path(x, "f", i%s.others), []byte(content(i+1000)), 0o644) },
		func(i int) bool {
			got, err := os.ReadFile(path(y, "f", i%s.others))
			return err == nil && string(got) == content(i+1000)
		})
	each("chmod", s.others,
		func(i int) error { return os.Chmod(path(x, "f", i), 0o600) },
		func(i int) bool { st, err := os.Lstat(path(y, "f", i)); return err == nil && st.Mode().Perm() == 0o600 })
	each("rename", s.others,
		func(i int) error { return os.Rename(path(x, "f", i), path(x, "g", i)) },
		func(i int) bool { return gone(path(y, "f", i)) && !gone(path(y, "g", i)) })
	each("delete", s.others,
		func(i int) error { return os.Remove(path(x, "g", i)) },
		func(i int) bool { return gone(path(y, "g", i)) })
	same(b, p, time.Now(), names(x))
	p.close()
}

func gone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}
