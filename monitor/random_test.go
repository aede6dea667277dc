//go:build linux

package monitor

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// After any history of moves all that exists is hinted when it is touched, and with
// fsnotify each folder is watched exactly once.
func TestRandomMoves(t *testing.T) {
	backends(t, func(t *testing.T, cfg Config) {
		top := cfg.Root
		for seed := range uint64(25) {
			cfg.Root = mkdir(t, top, fmt.Sprint(seed), "tree")
			outside := mkdir(t, top, fmt.Sprint(seed), "outside")
			r := start(t, cfg)
			random := rand.New(rand.NewPCG(seed, 1))
			for range 300 {
				disturb(random, cfg.Root, outside)
			}
			what := fmt.Sprintf("seed %d: ", seed)
			r.await(what+"all", func() bool { return len(r.uncovered()) == 0 })
			r.fence()
			r.await(what+"one watch for each folder", func() bool {
				return cfg.Backend != Fsnotify || r.m.Stats().Watches == countFolders(t, cfg.Root)
			})
			r.forget()
			touchAll(t, cfg.Root)
			r.await(what+"all, later", func() bool { return len(r.uncovered()) == 0 })
			r.stop()
			must(t, r.m.Close())
		}
	})
}

// disturb does one thing of many; most fail now and then, which is as good.
func disturb(random *rand.Rand, root, outside string) {
	path := func() string {
		p := root
		if random.IntN(8) == 0 {
			p = outside
		}
		for range 1 + random.IntN(3) {
			p += "/" + string(rune('a'+random.IntN(3)))
		}
		return p
	}
	switch a, b := path(), path(); random.IntN(8) {
	case 0, 1:
		_ = os.MkdirAll(a, 0o755)
	case 2, 3, 4:
		_ = unix.Rename(a, b)
	case 5:
		_ = exchange(a, b)
	case 6:
		_ = os.RemoveAll(a)
	case 7:
		_ = os.WriteFile(a+"/f", []byte("x"), 0o644)
	}
}

func countFolders(t *testing.T, root string) (n uint64) {
	t.Helper()
	must(t, filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			n++
		}
		return err
	}))
	return n
}
