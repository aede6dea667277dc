package replica

import (
	"cmp"
	"slices"
	"time"

	"github.com/clsync/clsync/signature"
)

// A fetch is one request for contents that is under way.
type fetch struct {
	from  signature.NodeID
	lane  Lane
	items []FetchItem
}

// A peer that does not have a content may have it in a moment: it is displacing it,
// or a look at it is due. It is asked again after notHereMin, then less and less often.
const (
	notHereMin = 50 * time.Millisecond
	notHereMax = 5 * time.Second
)

// planFetch asks peers for contents that this disk has nowhere.
func (c *Core) planFetch(now time.Time, fx *Effects, wake *wakeup) {
	if len(c.pending) == 0 && len(c.conflicts) == 0 || len(c.peers) == 0 {
		return
	}
	open := map[signature.NodeID][2]int{}
	for _, f := range c.fetches {
		n := open[f.from]
		n[f.lane]++
		open[f.from] = n
	}
	if !c.room(open) {
		return // whatever ends next brings us here again
	}
	want := make([]FetchItem, 0, 64)
	for p, d := range c.pending {
		if it, ok := c.wants(now, p, d, wake); ok {
			want = append(want, it)
		}
	}
	for p, k := range c.conflicts {
		if k.fetch.Path != "" && !c.applying[p] && c.pending[p] == nil {
			if _, busy := c.fetching[p]; !busy && !k.retry.After(now) {
				want = append(want, k.fetch)
			}
		}
	}
	slices.SortFunc(want, func(a, b FetchItem) int { return cmp.Compare(a.Path, b.Path) })
	tasks := map[signature.NodeID]*FetchTask{}
	for _, it := range want {
		if _, twice := c.fetchHash[it.Hash]; twice {
			continue // once it is here, the others copy it
		}
		from, ok := c.whom(now, it, wake)
		if !ok {
			continue
		}
		n := open[from]
		if it.Size >= largeFile {
			if n[Large] >= 1 {
				continue
			}
			n[Large]++
			open[from] = n
			c.ask(fx, FetchTask{From: from, Lane: Large, Items: []FetchItem{it}})
			continue
		}
		t := tasks[from]
		if t == nil {
			if n[Small] >= fetchOpen {
				continue
			}
			n[Small]++
			open[from] = n
			t = &FetchTask{From: from, Lane: Small}
			tasks[from] = t
		}
		if len(t.Items) < fetchFiles && (len(t.Items) == 0 || size(t.Items)+it.Size <= fetchBytes && names(t.Items)+len(it.Path) <= fetchNames) {
			t.Items = append(t.Items, it)
			c.fetchHash[it.Hash] = it.Path
		}
	}
	for _, id := range sortedPeers(tasks) {
		c.ask(fx, *tasks[id])
	}
}

// room tells whether any peer may be asked for more.
func (c *Core) room(open map[signature.NodeID][2]int) bool {
	for id := range c.peers {
		if n := open[id]; n[Small] < fetchOpen || n[Large] < 1 {
			return true
		}
	}
	return false
}

func sortedPeers[T any](m map[signature.NodeID]T) []signature.NodeID {
	ids := make([]signature.NodeID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, signature.NodeID.Compare)
	return ids
}

func size(items []FetchItem) (n int64) {
	for _, it := range items {
		n += it.Size
	}
	return n
}

func names(items []FetchItem) (n int) {
	for _, it := range items {
		n += len(it.Path)
	}
	return n
}

func (c *Core) ask(fx *Effects, t FetchTask) {
	c.nextBatch++
	t.Batch = c.nextBatch
	c.fetches[t.Batch] = &fetch{t.From, t.Lane, t.Items}
	for _, it := range t.Items {
		c.fetching[it.Path] = it.Hash
		c.fetchHash[it.Hash] = it.Path
	}
	c.count.Fetches++
	fx.Fetch = append(fx.Fetch, t)
}

// wants says which content a pending path must fetch now, if any.
func (c *Core) wants(now time.Time, p signature.Path, d *pend, wake *wakeup) (FetchItem, bool) {
	if !d.content || c.applying[p] {
		return FetchItem{}, false
	}
	if _, busy := c.fetching[p]; busy {
		return FetchItem{}, false
	}
	if s, waits := c.retry[p]; waits && s.at.After(now) && s.kind != NoSource {
		wake.by(s.at)
		return FetchItem{}, false
	}
	if s, ok := c.staged[p]; ok && s.hash == d.hash || c.here(p, d) {
		return FetchItem{}, false
	}
	return FetchItem{Path: p, Dot: d.dot, Hash: d.hash, Size: d.size, Basis: d.basis}, true
}

// whom chooses the peer to ask: the author, else one that has landed the version,
// else any that knows it; none that has just said it does not have it.
func (c *Core) whom(now time.Time, it FetchItem, wake *wakeup) (signature.NodeID, bool) {
	best, rank := signature.NodeID{}, 0
	for _, id := range sortedPeers(c.peers) {
		p := c.peers[id]
		if no := c.notHere[it.Path][id]; no.hash == it.Hash && no.until.After(now) {
			wake.by(no.until)
			continue
		}
		n := 0
		switch {
		case !p.known.Covers(it.Dot):
		case id == it.Dot.Actor.Node:
			n = 3
		case p.landed.Covers(it.Dot):
			n = 2
		default:
			n = 1
		}
		if n > rank {
			best, rank = id, n
		}
	}
	return best, rank > 0
}

func (c *Core) forgiveNotHere(id signature.NodeID) {
	for _, m := range c.notHere {
		delete(m, id)
	}
}

// fetched takes in what arrived in staging.
func (c *Core) fetched(now time.Time, ev Fetched) {
	f := c.fetches[ev.Batch]
	if f == nil {
		return
	}
	delete(c.fetches, ev.Batch)
	for _, it := range f.items {
		delete(c.fetching, it.Path)
		if c.fetchHash[it.Hash] == it.Path {
			delete(c.fetchHash, it.Hash)
		}
	}
	c.batchUse[ev.Batch] += 0 // an empty one is released as well
	for _, it := range ev.Items {
		switch it.Outcome {
		case Got:
			c.count.ContentsReceived++
			c.count.BytesReceived += uint64(it.Size)
			c.dropStaged(it.Path)
			c.staged[it.Path] = stagedContent{Staged{ev.Batch, it.Path}, it.Hash}
			c.batchUse[ev.Batch]++
			delete(c.notHere, it.Path)
			if s := c.retry[it.Path]; s.kind == NoSource {
				delete(c.retry, it.Path)
			}
		default:
			m := c.notHere[it.Path]
			if m == nil {
				m = map[signature.NodeID]refusedContent{}
				c.notHere[it.Path] = m
			}
			no := refusedContent{hash: it.Hash}
			if was := m[f.from]; was.hash == it.Hash {
				no.tries = was.tries + 1
			}
			no.until = now.Add(min(notHereMin<<min(no.tries, 8), notHereMax))
			m[f.from] = no
			if it.Outcome == Failed {
				if it.Err != nil && c.pending[it.Path] != nil {
					c.setRetry(now, it.Path, Blocked, "cannot be received", it.Err, 0)
				}
			}
		}
	}
}

// dropStaged forgets a staged content.
func (c *Core) dropStaged(p signature.Path) {
	if s, ok := c.staged[p]; ok {
		delete(c.staged, p)
		c.batchUse[s.Batch]--
	}
}

// releasable names the staging batches of which nothing is needed any more: also
// contents that were superseded while they travelled.
func (c *Core) releasable() []uint64 {
	if len(c.applying) > 0 {
		return nil // a batch under way may be using them
	}
	for p, s := range c.staged {
		if k := c.conflicts[p]; k != nil && k.fetch.Hash == s.hash {
			continue
		}
		if d := c.pending[p]; d == nil || d.hash != s.hash {
			c.dropStaged(p)
		}
	}
	var done []uint64
	for b, n := range c.batchUse {
		if n == 0 {
			done = append(done, b)
			delete(c.batchUse, b)
		}
	}
	slices.Sort(done)
	return done
}
