package signature

import (
	"cmp"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

var nodeA, nodeB = NodeID{1}, NodeID{2}

// The order is by stamp, then actor, then seq, and by nothing else.
func TestVersionsHaveOneOrder(t *testing.T) {
	v := func(stamp int64, n NodeID, inc, seq uint64) Version {
		return Version{Dot: Dot{Actor{n, inc}, seq}, Stamp: stamp}
	}
	verdict := v(1, nodeA, 1, 1)
	verdict.Case, verdict.Sig.Type = Case{9}, Folder
	for _, tt := range []struct {
		name string
		a, b Version
		want int
	}{
		{"later stamp", v(2, nodeA, 1, 1), v(1, nodeB, 9, 9), 1},
		{"stamps before 1970", v(-1, nodeA, 1, 1), v(-2, nodeB, 9, 9), 1},
		{"greater node", v(1, nodeB, 1, 1), v(1, nodeA, 9, 9), 1},
		{"greater incarnation", v(1, nodeA, 1<<63, 1), v(1, nodeA, 9, 9), 1},
		{"greater seq", v(1, nodeA, 1, 10), v(1, nodeA, 1, 9), 1},
		{"the same", v(1, nodeA, 1, 1), v(1, nodeA, 1, 1), 0},
		{"facts do not count", verdict, v(1, nodeA, 1, 1), 0},
	} {
		if got := tt.a.Compare(tt.b); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
		if got := tt.b.Compare(tt.a); got != -tt.want {
			t.Errorf("%s, the other way: %d, want %d", tt.name, got, -tt.want)
		}
	}
}

// genClose draws versions that mostly tie in something.
var genClose = rapid.Custom(func(t *rapid.T) Version {
	return Version{
		Dot: Dot{
			Actor{NodeID{rapid.ByteRange(0, 1).Draw(t, "node")}, rapid.Uint64Range(0, 1).Draw(t, "incarnation")},
			rapid.Uint64Range(1, 2).Draw(t, "seq"),
		},
		Stamp: rapid.SampledFrom([]int64{-1 << 63, -1, 0, 1, 1<<63 - 1}).Draw(t, "stamp"),
	}
})

func TestVersionOrderIsTotal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := genClose.Draw(t, "a"), genClose.Draw(t, "b"), genClose.Draw(t, "c")
		if a.Compare(b) != -b.Compare(a) {
			t.Fatal("not the same both ways")
		}
		if (a.Compare(b) == 0) != (a.Dot == b.Dot && a.Stamp == b.Stamp) {
			t.Fatal("two versions that tie")
		}
		if a.Compare(b) <= 0 && b.Compare(c) <= 0 && a.Compare(c) > 0 {
			t.Fatal("a <= b <= c < a")
		}
		vs := []Version{a, b, c}
		SortVersions(vs)
		if !slices.IsSortedFunc(vs, func(v, w Version) int { return w.Compare(v) }) {
			t.Fatal("the greatest is not first")
		}
	})
}

func TestDotsHaveOneOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, e := genClose.Draw(t, "d").Dot, genClose.Draw(t, "e").Dot
		want := cmp.Or(slices.Compare(d.Actor.Node[:], e.Actor.Node[:]), cmp.Compare(d.Actor.Incarnation, e.Actor.Incarnation), cmp.Compare(d.Seq, e.Seq))
		if d.Compare(e) != want || e.Compare(d) != -want {
			t.Fatalf("%d and %d, want %d", d.Compare(e), e.Compare(d), want)
		}
	})
}

func TestNodeIDText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := drawActor(t).Node
		if got, err := ParseNodeID(id.String()); err != nil || got != id {
			t.Fatalf("%v, %v", got, err)
		}
	})
	for _, s := range []string{"", "0", "zz", nodeA.String() + "00", nodeA.String()[2:], "g" + nodeA.String()[1:]} {
		if id, err := ParseNodeID(s); err == nil {
			t.Errorf("%q gives %v", s, id)
		}
	}
}

// Joining is the least upper bound: in any order, any number of times, the same.
func TestKnowledgeLaws(t *testing.T) {
	join := func(ks ...Knowledge) Knowledge {
		var all Knowledge
		all = all.Clone()
		for _, k := range ks {
			all.Join(k)
		}
		return all
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := genKnowledge.Draw(t, "a"), genKnowledge.Draw(t, "b"), genKnowledge.Draw(t, "c")
		kept := b.Clone()
		switch {
		case !join(a, b).Equal(join(b, a)):
			t.Fatal("not commutative")
		case !join(join(a, b), c).Equal(join(a, join(b, c))):
			t.Fatal("not associative")
		case !join(a, a).Equal(a), !join(a, nil).Equal(a):
			t.Fatal("not idempotent")
		case !join(a, b).CoversAll(a), !join(a, b).CoversAll(b):
			t.Fatal("not an upper bound")
		case c.CoversAll(a) && c.CoversAll(b) && !c.CoversAll(join(a, b)):
			t.Fatal("not the least")
		}
		ab := a.Clone()
		if news := ab.Join(b); news == a.CoversAll(b) {
			t.Fatalf("join says news: %v", news)
		}
		if ab.Join(b) {
			t.Fatal("news twice")
		}
		ab[Actor{Incarnation: 77}] = 1
		if !b.Equal(kept) || len(b) != len(kept) || a.Covers(Dot{Actor{Incarnation: 77}, 1}) {
			t.Fatal("a clone or a joined one is shared")
		}
		for actor, seq := range a {
			if !a.Covers(Dot{actor, seq}) || a.Covers(Dot{actor, seq + 1}) {
				t.Fatalf("covers of %d", seq)
			}
		}
		if !slices.IsSortedFunc(a.Actors(), Actor.Compare) || len(a.Actors()) != len(a) {
			t.Fatal("actors")
		}
	})
}

func TestStatMark(t *testing.T) {
	m := StatMark{CTime: 1e9, Ino: 1, Size: 3, Mode: 0o100644, Links: 1, Looked: 2e9}
	later := m
	later.Looked, later.Links = 3e9, 2
	if !m.Same(later) || !later.Same(m) {
		t.Error("the moment of the look and the number of names do not matter")
	}
	for name, change := range map[string]func(*StatMark){
		"ctime": func(m *StatMark) { m.CTime++ }, "mtime": func(m *StatMark) { m.MTime++ },
		"inode": func(m *StatMark) { m.Ino++ }, "device": func(m *StatMark) { m.Dev++ },
		"size": func(m *StatMark) { m.Size++ }, "mode": func(m *StatMark) { m.Mode++ },
	} {
		o := m
		change(&o)
		if m.Same(o) || o.Same(m) {
			t.Errorf("the same with another %s", name)
		}
	}
	for _, tt := range []struct {
		ctime, looked int64
		want          bool
	}{
		{1e9, 1e9 + int64(Tick) + 1, true},
		{1e9, 1e9 + int64(Tick), false},
		{1e9, 1e9, false},
		{1e9, 5e8, false}, // a clock that was set back
		{0, 9e9, false},   // no mark
	} {
		if got := (StatMark{CTime: tt.ctime, Looked: tt.looked}).Settled(); got != tt.want {
			t.Errorf("changed at %d, looked at %d: settled is %v", tt.ctime, tt.looked, got)
		}
	}
}
