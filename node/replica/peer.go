package replica

import (
	"time"

	"github.com/clsync/clsync/signature"
)

// A peer is what is known of a node with which a session stands.
type peer struct {
	known, landed signature.Knowledge
	receiveOnly   bool
	sending       bool                // a cut is under way
	sent          signature.Knowledge // what the peer will know once it is acked
	behind        time.Time           // since when it lacks only what others should tell it
}

func (p *peer) acked(ok bool) {
	if ok && p.sending {
		p.known.Join(p.sent)
	}
	p.sending, p.sent = false, nil
}

func (c *Core) headIn(ev HeadIn) {
	p := c.peers[ev.ID]
	if p == nil {
		return
	}
	p.known.Join(ev.Known)
	if len(p.known) > signature.MaxActors { // it names others each time; what it says now counts
		p.known = ev.Known.Clone()
	}
	if len(p.landed) > signature.MaxActors {
		p.landed = signature.Knowledge{}
	}
	if p.landed.Join(ev.Landed) {
		c.forgiveNotHere(ev.ID)
	}
}

// planCuts streams to each peer what it lacks, one cut at a time: under load, what
// gathers while a cut is under way makes the next one.
func (c *Core) planCuts(now time.Time, fx *Effects, wake *wakeup) {
	for _, id := range sortedPeers(c.peers) {
		p := c.peers[id]
		if p.sending || p.known.CoversAll(c.knowledge) {
			p.behind = time.Time{}
			continue
		}
		if p.known.Covers(signature.Dot{Actor: c.cfg.Self, Seq: c.seq}) {
			// Only relayed changes. Their authors stream them as well; a relay
			// waits until it is clear that somebody must step in.
			if p.behind.IsZero() {
				p.behind = now
			}
			if due := p.behind.Add(relayWait); due.After(now) {
				wake.by(due)
				continue
			}
		}
		cut := Cut{Knowledge: c.knowledge.Clone()}
		c.ix.Since(p.known, func(r signature.Record) bool {
			cut.Listings = append(cut.Listings, signature.Listing{Path: r.Path, Versions: r.Listed})
			return true
		})
		p.sending, p.sent, p.behind = true, cut.Knowledge, time.Time{}
		fx.Cuts = append(fx.Cuts, CutOut{To: id, Cut: cut})
		c.count.CutsSent++
		c.count.RecordsSent += uint64(len(cut.Listings))
	}
}
