package gossip

import (
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	"github.com/clsync/clsync/signature"
)

// Limits on datagrams. A sender stays below what one source is allowed, and one
// source stays far below what is opened in all.
const (
	sendRate, sendBurst     = 200, 50
	sourceRate, sourceBurst = 400, 400
	totalRate, totalBurst   = 4000, 4000
	foundRate, foundBurst   = 1, 4 // a node heard of, per node
	foundTotal              = 50   // and in all

	maxSources = 256
	maxSenders = 1024
	maxBoots   = 4 // remembered per sender
)

// A guard decides which datagrams are opened and which count. It belongs to the
// one goroutine that reads them.
type guard struct {
	total   *rate.Limiter
	sources map[netip.Addr]*rate.Limiter
	senders map[signature.NodeID]*sender
	found   *rate.Limiter
}

// A sender is the highest counter seen of each of a node's last boots. More than
// one boot, since a clock that was set back makes a new boot look old, and a
// recorded datagram of an old boot must not pass for a new one.
type sender struct {
	found *rate.Limiter
	boots [maxBoots]struct{ boot, counter uint64 }
	next  int // the place to reuse
}

func newGuard() *guard {
	return &guard{
		total:   rate.NewLimiter(totalRate, totalBurst),
		sources: map[netip.Addr]*rate.Limiter{},
		senders: map[signature.NodeID]*sender{},
		found:   rate.NewLimiter(foundTotal, foundTotal),
	}
}

// admit tells whether a datagram from src may be opened now.
func (g *guard) admit(now time.Time, src netip.Addr) bool {
	l := g.sources[src]
	if l == nil {
		if len(g.sources) >= maxSources {
			// Any will do: who is forgotten gets a full bucket the next time, and a
			// flood of forged sources is held by the total.
			for a := range g.sources {
				delete(g.sources, a)
				break
			}
		}
		l = rate.NewLimiter(sourceRate, sourceBurst)
		g.sources[src] = l
	}
	return l.AllowN(now, 1) && g.total.AllowN(now, 1)
}

// fresh tells whether a signed datagram is newer than all seen of that node's boot.
func (g *guard) fresh(d datagram) bool {
	s := g.senders[d.node]
	if s == nil {
		if len(g.senders) >= maxSenders {
			for id := range g.senders { // only a holder of the key gets here
				delete(g.senders, id)
				break
			}
		}
		s = &sender{found: rate.NewLimiter(foundRate, foundBurst)}
		g.senders[d.node] = s
	}
	for i := range s.boots {
		if b := &s.boots[i]; b.boot == d.boot && b.counter != 0 {
			if d.counter <= b.counter {
				return false
			}
			b.counter = d.counter
			return true
		}
	}
	if d.counter == 0 {
		return false
	}
	b := &s.boots[s.next]
	b.boot, b.counter = d.boot, d.counter
	s.next = (s.next + 1) % maxBoots
	return true
}

// mayReport tells whether a node that was just heard may be reported as found.
func (g *guard) mayReport(now time.Time, id signature.NodeID) bool {
	s := g.senders[id]
	return s != nil && s.found.AllowN(now, 1) && g.found.AllowN(now, 1)
}
