package replica

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/index"
)

// A world is a set of changes of one path that a cluster could have made: each
// replaces some of those that its author listed.
type world struct {
	rng   *rand.Rand
	nodes []*mergeNode
}

type mergeNode struct {
	actor     signature.Actor
	listed    []signature.Version
	knowledge signature.Knowledge
	seq       uint64
}

const mergePath = signature.Path("p")

func newWorld(seed uint64) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 5))}
	for i := range 3 {
		w.nodes = append(w.nodes, &mergeNode{actor: signature.Actor{Node: signature.NodeID{byte(i + 1)}, Incarnation: 1}, knowledge: signature.Knowledge{}})
	}
	for range 4 + w.rng.IntN(10) {
		n := w.nodes[w.rng.IntN(3)]
		if w.rng.IntN(2) == 0 {
			o := w.nodes[w.rng.IntN(3)]
			n.listed, n.knowledge = merged(n, o)
			continue
		}
		n.seq++
		v := signature.Version{Dot: signature.Dot{Actor: n.actor, Seq: n.seq}, Stamp: int64(w.rng.IntN(4)), Sig: w.signature()}
		if len(n.listed) > 0 {
			at := w.rng.IntN(len(n.listed))
			n.listed = slices.Delete(slices.Clone(n.listed), at, at+1)
		}
		n.listed = append(n.listed, v)
		signature.SortVersions(n.listed)
		n.knowledge[n.actor] = n.seq
	}
	return w
}

func (w *world) signature() signature.Signature {
	s := signature.Signature{Type: []signature.Type{signature.Absent, signature.File, signature.Folder, signature.Symlink}[w.rng.IntN(4)]}
	switch s.Type {
	case signature.File:
		s.Size, s.Hash = 1, hashOf(fmt.Sprint(w.rng.IntN(3)))
	case signature.Symlink:
		s.Target = fmt.Sprint(w.rng.IntN(2))
	}
	if s.Type != signature.Folder && w.rng.IntN(3) == 0 {
		s.Kept = signature.Kept{Set: true, Facts: signature.Facts{Mode: uint32(w.rng.IntN(2))}}
	}
	return s
}

// merged lets a core that is as n take in a whole cut of o.
func merged(n, o *mergeNode) ([]signature.Version, signature.Knowledge) {
	ix := index.NewMemory()
	if len(n.listed) > 0 {
		ix.Put(signature.Record{Path: mergePath, Listed: n.listed})
	}
	c := New(Config{Self: n.actor}, ix, Start{Seq: n.seq, Knowledge: n.knowledge})
	c.Step(epoch, CutIn{From: o.actor.Node, Cut: Cut{Knowledge: o.knowledge.Clone(), Listings: []signature.Listing{{Path: mergePath, Versions: o.listed}}}})
	r, _ := ix.Get(mergePath)
	return r.Listed, c.Knowledge().Clone()
}

func with(n *mergeNode, listed []signature.Version, k signature.Knowledge) *mergeNode {
	return &mergeNode{actor: n.actor, seq: n.seq, listed: listed, knowledge: k}
}

// Cuts may come in any order and more than once.
func TestMergeLaws(t *testing.T) {
	for seed := range uint64(2000) {
		w := newWorld(seed)
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		same := func(law string, x, y []signature.Version) {
			t.Helper()
			if !slices.Equal(x, y) {
				t.Fatalf("seed %d: %s:\n%v\n%v", seed, law, x, y)
			}
		}
		ab, kab := merged(a, b)
		ba, kba := merged(b, a)
		same("commutative", ab, ba)
		if !kab.Equal(kba) {
			t.Fatalf("seed %d: knowledge %v and %v", seed, kab, kba)
		}
		again, _ := merged(with(a, ab, kab), b)
		same("idempotent", ab, again)
		bc, kbc := merged(b, c)
		left, _ := merged(with(a, ab, kab), c)
		right, _ := merged(a, with(b, bc, kbc))
		same("associative", left, right)
		for _, v := range ab {
			if !kab.Covers(v.Dot) {
				t.Fatalf("seed %d: lists %v and does not know it", seed, v.Dot)
			}
		}
	}
}

// What is a conflict depends on what is listed and on nothing else.
func TestDistinct(t *testing.T) {
	for seed := range uint64(2000) {
		w := newWorld(seed)
		var vs []signature.Version
		for i := range 1 + w.rng.IntN(6) {
			vs = append(vs, signature.Version{Dot: signature.Dot{Actor: w.nodes[i%3].actor, Seq: uint64(100 + i)}, Stamp: int64(w.rng.IntN(3)), Sig: w.signature()})
		}
		signature.SortVersions(vs)
		want := distinct(vs)
		if want[0] != vs[0] {
			t.Fatalf("seed %d: the greatest is left out", seed)
		}
		if got := distinct(want); !slices.Equal(got, want) {
			t.Fatalf("seed %d: %v, the second time %v", seed, want, got)
		}
		mixed := slices.Clone(vs)
		w.rng.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		signature.SortVersions(mixed)
		if got := distinct(mixed); !slices.Equal(got, want) {
			t.Fatalf("seed %d: %v, mixed %v", seed, want, got)
		}
		for _, v := range vs {
			if !slices.ContainsFunc(want, func(x signature.Version) bool { return x.Sig.SameContent(v.Sig) }) {
				t.Fatalf("seed %d: a content is left out", seed)
			}
		}
	}
}
