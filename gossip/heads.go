package gossip

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/clsync/clsync/signature"
)

type headKey struct {
	node signature.NodeID
	tree string
}

// learned says what became of a head.
type learned uint8

const (
	stale learned = iota // known, or older than what is known
	fresh
	full   // no room
	outbid // an earlier life of ours had a greater boot: announce again
)

// heads is the newest head of every node and tree, ours included.
type heads struct {
	mu    sync.Mutex
	self  signature.NodeID
	boot  uint64
	seq   uint64
	bid   time.Time // when boot was last raised
	own   map[string]head
	other map[headKey]head
	count map[signature.NodeID]int // of other, per node
}

func newHeads(self signature.NodeID, boot uint64) *heads {
	return &heads{
		self: self, boot: boot,
		own:   map[string]head{},
		other: map[headKey]head{},
		count: map[signature.NodeID]int{},
	}
}

// announce makes digest our head of tree. It tells whether that was news.
func (t *heads) announce(tree string, digest []byte) (head, bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was, known := t.own[tree]
	if known && was.digest == string(digest) {
		return was, false, nil
	}
	h := head{node: t.self, boot: t.boot, seq: t.seq + 1, tree: tree, digest: string(digest)}
	if _, err := h.encode(); err != nil {
		return h, false, err
	}
	if !known && len(t.own) >= MaxTrees {
		return h, false, ErrTrees
	}
	t.seq++
	t.own[tree] = h
	return h, true, nil
}

// learn takes in what was heard. alive tells which nodes are worth their room.
func (t *heads) learn(now time.Time, h head, alive func(signature.NodeID) bool) learned {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h.node == t.self {
		return t.heardOfUs(now, h)
	}
	k := headKey{h.node, h.tree}
	was, known := t.other[k]
	switch {
	case known && !h.newer(was):
		return stale
	case !known && t.count[h.node] >= MaxTrees:
		return full
	case !known && len(t.other) >= maxHeads && !t.evict(alive):
		return full
	}
	if !known {
		t.count[h.node]++
	}
	t.other[k] = h
	return fresh
}

// rebid is how often we outbid ourselves: two clones would do so without end.
const rebid = time.Minute

// heardOfUs looks at a head that bears our name. No clock is trusted: where an
// earlier life of ours was ahead we pass it by, as memberlist refutes.
func (t *heads) heardOfUs(now time.Time, h head) learned {
	if h.boot <= t.boot || h.boot >= maxBoot || !t.bid.IsZero() && now.Sub(t.bid) < rebid {
		return stale
	}
	t.boot, t.bid = h.boot+1, now
	for tree, o := range t.own {
		t.seq++
		o.boot, o.seq = t.boot, t.seq
		t.own[tree] = o
	}
	return outbid
}

// evict makes room at the cost of a node that is not alive.
func (t *heads) evict(alive func(signature.NodeID) bool) bool {
	for k := range t.other {
		if !alive(k.node) {
			t.drop(k)
			return true
		}
	}
	return false
}

func (t *heads) drop(k headKey) {
	delete(t.other, k)
	if t.count[k.node]--; t.count[k.node] <= 0 {
		delete(t.count, k.node)
	}
}

// get returns the newest head of a tree of ours.
func (t *heads) get(tree string) (head, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h, ok := t.own[tree]
	return h, ok
}

// ours returns our heads, the newest first.
func (t *heads) ours() []head {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sorted(nil)
}

// all returns ours first.
func (t *heads) all() []head {
	t.mu.Lock()
	defer t.mu.Unlock()
	hs := t.sorted(make([]head, 0, len(t.own)+len(t.other)))
	for _, h := range t.other {
		hs = append(hs, h)
	}
	return hs
}

func (t *heads) sorted(hs []head) []head {
	for _, h := range t.own {
		hs = append(hs, h)
	}
	slices.SortFunc(hs, func(a, b head) int { return cmp.Compare(b.seq, a.seq) })
	return hs
}

// life returns the boot that goes into everything we send.
func (t *heads) life() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.boot
}
