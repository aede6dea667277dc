package replica

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/clsync/clsync/signature"
)

// Landed is the part of knowledge of which everything shown first is held.
func (c *Core) Landed() signature.Knowledge { return c.landed() }

// Counters returns what was counted since the Core was made.
func (c *Core) Counters() Counters { return c.count }

// Serves tells whether this disk holds that content at that path, and the mark
// under which it was seen.
func (c *Core) Serves(p signature.Path, h signature.Hash) (signature.StatMark, bool) {
	r, ok := c.ix.Get(p)
	if !ok || r.Shown.Type != signature.File || r.Shown.Hash != h || c.applying[p] {
		return signature.StatMark{}, false
	}
	return r.Mark, true
}

// A Stuck path is one that cannot land, or not be read, and why.
type Stuck struct {
	Path  signature.Path
	Why   string
	Err   error
	Since time.Time
	Busy  bool
	Look  bool // it cannot be looked at; otherwise it cannot land
}

// Stuck lists paths that failed at least twice, by path, at most max of them.
func (c *Core) Stuck(max int) []Stuck {
	var all []Stuck
	for p, s := range c.retry {
		if s.tries > 1 || s.kind == Blocked {
			all = append(all, Stuck{p, s.why, s.err, s.since, s.kind == Busy, s.look})
		}
	}
	slices.SortFunc(all, func(a, b Stuck) int { return cmp.Compare(a.Path, b.Path) })
	return all[:min(len(all), max)]
}

// Local lists what was changed here on a receive-only node, at most max paths.
func (c *Core) Local(max int) []signature.Path {
	all := slices.Sorted(maps.Keys(c.local))
	return all[:min(len(all), max)]
}

// Lacking lists what this disk shows without some of its attributes, at most max.
func (c *Core) Lacking(max int) []signature.Path {
	all := slices.Sorted(maps.Keys(c.lacking))
	return all[:min(len(all), max)]
}

// State is how much is under way.
type State struct {
	Dirty, Looking, Gone, Pending, Applying, Fetching, Conflicts, Scans, Local, Stuck int
	PendingBytes                                                                      int64
}

// State says how much is under way.
func (c *Core) State() State {
	s := State{
		Dirty: len(c.dirty), Looking: len(c.looking), Gone: len(c.gone), Pending: len(c.pending), Applying: len(c.applying),
		Fetching: len(c.fetching), Conflicts: len(c.conflicts), Scans: c.scanned + len(c.scans), Local: len(c.local), Stuck: len(c.retry),
	}
	for _, d := range c.pending {
		s.PendingBytes += d.size
	}
	return s
}

// A Lag is how far a peer is behind this node.
type Lag struct {
	ID      signature.NodeID
	Records uint64 // paths listed here whose newest the peer has not landed; at most maxLag
	Bytes   int64  // contents of these
}

// maxLag bounds how many records a question about a peer's lag goes through.
const maxLag = 10000

// lacks counts the paths that list a version beyond k, and the bytes of it, up to
// maxLag paths.
func (c *Core) lacks(k signature.Knowledge) (records uint64, bytes int64) {
	c.ix.Since(k, func(r signature.Record) bool {
		records++
		bytes += r.Listed[0].Sig.Size
		return records < maxLag
	})
	return records, bytes
}

// Lags lists all peers with a session.
func (c *Core) Lags() []Lag {
	var lags []Lag
	for _, id := range sortedPeers(c.peers) {
		p, l := c.peers[id], Lag{ID: id}
		for a, seq := range c.knowledge {
			l.Records += seq - min(seq, p.landed[a])
		}
		if l.Records > 0 {
			l.Records, l.Bytes = c.lacks(p.landed)
		}
		lags = append(lags, l)
	}
	return lags
}
