package monitor

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/clsync/clsync/signature"
)

// pending is the set of hints that wait for the reader. Adding never blocks. When
// it is full, hints become deep hints on folders above them: what is to be looked
// at only grows.
type pending struct {
	wake  chan struct{} // filled when there is something to take
	limit int

	mu        sync.Mutex
	marks     map[signature.Path]mark
	collapsed uint64
}

type mark uint8

const (
	deep mark = 1 << iota
	overflow
)

func newPending(limit int) *pending {
	return &pending{wake: make(chan struct{}, 1), limit: limit, marks: make(map[signature.Path]mark)}
}

func (q *pending) add(p signature.Path, m mark) {
	q.mu.Lock()
	q.marks[p] |= m
	if len(q.marks) > q.limit {
		q.collapse()
	}
	q.mu.Unlock()
	q.signal()
}

func (q *pending) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns all that waits and forgets it.
func (q *pending) take() []Hint {
	q.mu.Lock()
	marks := q.marks
	q.marks = make(map[signature.Path]mark)
	q.mu.Unlock()
	prune(marks)
	hints := make([]Hint, 0, len(marks))
	for p, m := range marks {
		hints = append(hints, Hint{Path: p, Deep: m&deep != 0, Overflow: m&overflow != 0})
	}
	slices.SortFunc(hints, func(a, b Hint) int { return cmp.Compare(a.Path, b.Path) })
	return hints
}

// putBack returns what was taken and could not be sent.
func (q *pending) putBack(hints []Hint) {
	for _, h := range hints {
		var m mark
		if h.Deep {
			m |= deep
		}
		if h.Overflow {
			m |= overflow
		}
		q.add(h.Path, m)
	}
}

func (q *pending) collapses() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.collapsed
}

// prune drops what lies beneath a deep hint.
func prune(marks map[signature.Path]mark) {
	anyDeep := false
	for _, m := range marks {
		anyDeep = anyDeep || m&deep != 0
	}
	if !anyDeep {
		return
	}
	for p := range marks {
		if covered(marks, p) {
			delete(marks, p)
		}
	}
}

// covered tells whether a folder above p is hinted deep.
func covered(marks map[signature.Path]mark, p signature.Path) bool {
	for p != "" {
		p, _ = p.Parent()
		if marks[p]&deep != 0 {
			return true
		}
	}
	return false
}

// collapse makes room for at least as much again: first by dropping what is
// covered, then by lifting the deepest hints to their folders, level by level.
func (q *pending) collapse() {
	prune(q.marks)
	deepest := 0
	for p := range q.marks {
		deepest = max(deepest, level(p))
	}
	if len(q.marks) > q.limit/2 {
		q.collapsed++
	}
	for n := deepest - 1; n >= 0 && len(q.marks) > q.limit/2; n-- {
		lifted := make(map[signature.Path]mark)
		for p, m := range q.marks {
			if up := ancestor(p, n); up != p {
				p, m = up, m|deep
			}
			lifted[p] |= m
		}
		q.marks = lifted
	}
}

// level returns the number of names in p.
func level(p signature.Path) int {
	if p == "" {
		return 0
	}
	return 1 + strings.Count(string(p), "/")
}

// ancestor returns the first n names of p.
func ancestor(p signature.Path, n int) signature.Path {
	if n == 0 {
		return ""
	}
	for i := range len(p) {
		if p[i] == '/' {
			if n--; n == 0 {
				return p[:i]
			}
		}
	}
	return p
}
