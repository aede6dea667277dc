package load

import (
	"crypto/sha256"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/test/compare"
)

// A Sum is the digest of a content.
type Sum [32]byte

// A Write is one content put at a path, or a path removed.
type Write struct {
	Node     string
	Path     string
	Sum      Sum   // zero: removed
	Replaces []Sum // contents that were seen at the path on that node
}

// A History is all writes of all writers. It may be used from many goroutines.
type History struct {
	mu      sync.Mutex
	writes  []Write
	changes int
}

// Add appends a write.
func (h *History) Add(w Write) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes = append(h.writes, w)
}

// changed counts paths that a program has changed, once per system call that
// could be seen as a change of its own.
func (h *History) changed(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes += n
}

// Changes returns how many changes of paths were made, folders' times apart.
func (h *History) Changes() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changes
}

// Writes returns a copy of all writes.
func (h *History) Writes() []Write {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Write(nil), h.writes...)
}

// Lost returns a line for each content that is gone: not visible in any tree, not
// in any conflict store, and replaced by nobody who had it. A store that does not
// exist is empty.
func Lost(h *History, trees, stores []string) ([]string, error) {
	kept := map[Sum]bool{}
	for _, root := range append(append([]string(nil), trees...), stores...) {
		if _, err := os.Lstat(root); os.IsNotExist(err) {
			continue
		}
		tree, err := compare.Scan(root, compare.Contents)
		if err != nil {
			return nil, err
		}
		for _, e := range tree {
			if e.Type == unix.S_IFREG {
				kept[e.Sum] = true
			}
		}
	}
	writes := h.Writes()
	for _, w := range writes {
		for _, s := range w.Replaces {
			if s != w.Sum {
				kept[s] = true
			}
		}
	}
	var lost []string
	for _, w := range writes {
		if w.Sum != (Sum{}) && !kept[w.Sum] {
			lost = append(lost, fmt.Sprintf("%s wrote %q: content %x is nowhere", w.Node, w.Path, w.Sum[:6]))
		}
	}
	return lost, nil
}

// SumOf is the digest of a content.
func SumOf(content []byte) Sum { return sha256.Sum256(content) }
