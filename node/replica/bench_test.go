package replica

import (
	"fmt"
	"testing"
	"time"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/index"
)

var (
	benchPeer = signature.Actor{Node: signature.NodeID{1}, Incarnation: 1}
	benchSelf = signature.Actor{Node: signature.NodeID{2}, Incarnation: 1}
)

func benchVersion(seq int, kind signature.Type) signature.Version {
	v := signature.Version{Dot: signature.Dot{Actor: benchPeer, Seq: uint64(seq)}, Stamp: epoch.UnixNano() + int64(seq)}
	v.Sig.Type = kind
	switch kind {
	case signature.File:
		v.Sig.Facts = signature.Facts{Mode: 0o644, MTime: v.Stamp}
		v.Sig.Size, v.Sig.Hash = 8, hashOf(fmt.Sprint(seq))
	case signature.Folder:
		v.Sig.Facts = signature.Facts{Mode: 0o755, MTime: v.Stamp}
	}
	return v
}

// benchTree fills an index with n files in folders, all held, and returns the cut
// that deletes all of them and creates as many others.
func benchTree(store *index.Store, n int) (cut Cut) {
	seq := 0
	list := func(p signature.Path, kind signature.Type) {
		seq++
		cut.Listings = append(cut.Listings, signature.Listing{Path: p, Versions: []signature.Version{benchVersion(seq, kind)}})
	}
	hold := func(p signature.Path, v signature.Version) {
		mark := signature.StatMark{Ino: v.Dot.Seq, Dev: 1, CTime: 1, Looked: epoch.UnixNano(), Links: 1}
		store.Put(signature.Record{Path: p, Listed: []signature.Version{v}, Held: signature.Held{Version: v, Form: signature.Plain}, Shown: v.Sig, Mark: mark})
	}
	for i := range n {
		from, to := signature.Path(fmt.Sprintf("old%03d", i/100)), signature.Path(fmt.Sprintf("new%03d", i/100))
		if i%100 == 0 {
			hold(from, benchVersion(3*n+i, signature.Folder))
			list(from, signature.Absent)
			list(to, signature.Folder)
		}
		name := signature.Path(fmt.Sprintf("/%06d", i))
		hold(from+name, benchVersion(5*n+i, signature.File))
		list(from+name, signature.Absent)
		list(to+name, signature.File)
	}
	cut.Knowledge = signature.Knowledge{benchPeer: uint64(9 * n)}
	return cut
}

// A perfect disk and a perfect peer do at once what the core asks for.
func perfect(fx Effects, now time.Time, ino *uint64) (events []Event) {
	if len(fx.Apply) > 0 {
		ev := Applied{}
		for _, t := range fx.Apply {
			*ino++
			l := signature.Look{Path: t.Path, Sig: t.Target}
			if t.Target.Exists() {
				l.Mark = signature.StatMark{Ino: *ino, Dev: 1, CTime: 1, Looked: now.UnixNano(), Links: 1}
			}
			ev.Results = append(ev.Results, Result{Task: t, Look: l})
		}
		events = append(events, ev)
	}
	for _, f := range fx.Fetch {
		ev := Fetched{Batch: f.Batch}
		for _, it := range f.Items {
			ev.Items = append(ev.Items, FetchedItem{FetchItem: it, Outcome: Got})
		}
		events = append(events, ev)
	}
	if len(fx.Looks) > 0 {
		ev := Looked{}
		for _, t := range fx.Looks {
			ev.Looks = append(ev.Looks, Seen{Task: t, Look: signature.Look{Path: t.Path, Unchanged: true}})
		}
		events = append(events, ev)
	}
	return events
}

// benchmarkCut takes in a cut of n creates and n deletes and lets it land.
func benchmarkCut(b *testing.B, n int) {
	for b.Loop() {
		b.StopTimer()
		store, err := index.Open(b.TempDir(), index.Proof{BootID: "boot", Mount: 1})
		if err != nil {
			b.Fatal(err)
		}
		commit := func(k signature.Knowledge) {
			if err := store.Commit(index.Meta{Actor: benchSelf, Knowledge: k}); err != nil {
				b.Fatal(err)
			}
		}
		cut := benchTree(store, n)
		commit(nil)
		c := New(Config{Self: benchSelf}, store, Start{})
		c.Step(epoch, PeerUp{ID: benchPeer.Node, Known: cut.Knowledge.Clone(), Landed: cut.Knowledge.Clone()})
		b.StartTimer()
		steps, ino, now := 0, uint64(100*n), epoch
		for events := []Event{CutIn{From: benchPeer.Node, Cut: cut}}; len(events) > 0; steps++ {
			now = now.Add(time.Millisecond)
			fx := c.Step(now, events[0])
			if fx.Save {
				commit(c.Knowledge())
			}
			events = append(events[1:], perfect(fx, now, &ino)...)
		}
		b.StopTimer()
		if s := c.State(); s.Pending > 0 || s.Dirty > 0 {
			b.Fatalf("undone after %d steps: %+v", steps, s)
		}
		b.ReportMetric(float64(steps), "steps/op")
		if err := store.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkCut2000(b *testing.B)  { benchmarkCut(b, 2000) }
func BenchmarkCut20000(b *testing.B) { benchmarkCut(b, 20000) }
