package session

import (
	"time"

	"github.com/clsync/clsync/signature"
)

const (
	maxPlaces     = 1024
	maxPlacesEach = 8         // of one peer
	hintFor       = time.Hour // an address that never worked is tried so long after the last hint
	hintGap       = time.Second
	selfPause     = 10 * time.Minute // until an address that was our own is tried again
	steady        = 10 * time.Second // a session that lived so long was no failure
)

// A place is an address where a peer may be.
type place struct {
	addr    string
	id      signature.NodeID // zero: unknown
	worked  time.Time        // when a session was last reached there; zero: never
	hinted  time.Time
	tried   time.Time
	next    time.Time
	fails   int
	dialing bool
}

// places says whom to dial when. It is told the time, and decides only.
type places struct {
	min, max time.Duration // of the back-off
	byAddr   map[string]*place
}

// meet notes a hint. A fresh hint for an address in back-off brings the next dial
// forward, but never to more than one per hintGap.
func (p *places) meet(now time.Time, id signature.NodeID, addr string) {
	at := p.byAddr[addr]
	if at == nil {
		if !p.room(id) {
			return
		}
		at = &place{addr: addr, next: now}
		p.byAddr[addr] = at
	}
	if !id.IsZero() {
		at.id = id
	}
	at.hinted = now
	if soon := at.tried.Add(max(hintGap, p.min)); soon.Before(at.next) && at.next.Sub(now) < selfPause/2 {
		at.next = soon
	}
}

// room makes sure that one more place fits, at the cost of the least useful one.
func (p *places) room(id signature.NodeID) bool {
	var all, own *place
	n := 0
	for _, at := range p.byAddr {
		if at.dialing {
			continue
		}
		if at.worked.IsZero() && worse(at, all) {
			all = at
		}
		if !id.IsZero() && at.id == id {
			n++
			if worse(at, own) {
				own = at
			}
		}
	}
	if n >= maxPlacesEach {
		delete(p.byAddr, own.addr)
		return true
	}
	if len(p.byAddr) < maxPlaces {
		return true
	}
	if all == nil {
		return false
	}
	delete(p.byAddr, all.addr)
	return true
}

func worse(a, b *place) bool {
	if b == nil || !a.worked.Equal(b.worked) {
		return b == nil || a.worked.Before(b.worked)
	}
	if a.fails != b.fails {
		return a.fails > b.fails
	}
	return a.hinted.Before(b.hinted)
}

// due returns the places to dial now and marks them, and when to ask again. Of
// the places of one peer, one at a time is dialled: the one that last worked.
func (p *places) due(now time.Time, wanted func(signature.NodeID) bool) (out []*place, again time.Time) {
	best := map[signature.NodeID]*place{}
	busy := map[signature.NodeID]bool{}
	for addr, at := range p.byAddr {
		if !at.dialing && at.worked.IsZero() && now.Sub(at.hinted) > hintFor {
			delete(p.byAddr, addr)
		}
		busy[at.id] = busy[at.id] || at.dialing
	}
	for _, at := range p.byAddr {
		known := !at.id.IsZero()
		if at.dialing || known && (busy[at.id] || !wanted(at.id)) {
			continue
		}
		if at.next.After(now) {
			if again.IsZero() || at.next.Before(again) {
				again = at.next
			}
			continue
		}
		if !known {
			out = append(out, at)
		} else if b := best[at.id]; b == nil || worse(b, at) {
			best[at.id] = at
		}
	}
	for _, at := range best {
		out = append(out, at)
	}
	for _, at := range out {
		at.dialing, at.tried = true, now
	}
	return out, again
}

// reached notes that id was found at addr.
func (p *places) reached(now time.Time, addr string, id signature.NodeID) {
	if at := p.byAddr[addr]; at != nil {
		at.dialing, at.worked, at.id = false, now, id
		at.next = now.Add(p.min)
	}
}

// failed notes that nobody was found at addr. The jitter is in [0,1).
func (p *places) failed(now time.Time, addr string, jitter float64) {
	if at := p.byAddr[addr]; at != nil {
		at.dialing = false
		at.fails++
		at.next = now.Add(backoff(p.min, p.max, at.fails, jitter))
	}
}

// own notes that addr is our own.
func (p *places) own(now time.Time, addr string) {
	if at := p.byAddr[addr]; at != nil {
		at.dialing, at.next = false, now.Add(selfPause)
	}
}

// lost notes that a session with id ended that had lived so long. Its places are
// tried again soon, but not if sessions come and go: two machines with one key
// would take them from each other for ever.
func (p *places) lost(now time.Time, id signature.NodeID, lived time.Duration, jitter float64) {
	for _, at := range p.byAddr {
		if at.id != id || at.dialing {
			continue
		}
		at.fails++
		if lived >= steady {
			at.fails = 1
		}
		at.next = now.Add(backoff(p.min, p.max, at.fails, jitter))
	}
}

func (p *places) forget(id signature.NodeID, addr string) {
	for a, at := range p.byAddr {
		if a == addr || !id.IsZero() && at.id == id {
			delete(p.byAddr, a)
		}
	}
}

// backoff doubles with every failure and is spread over the upper half, so that
// nodes that lost each other at one moment do not meet again at one moment.
func backoff(least, most time.Duration, fails int, jitter float64) time.Duration {
	d := most
	if fails < 30 {
		d = min(most, least<<max(fails-1, 0))
	}
	return d/2 + time.Duration(jitter*float64(d/2))
}
