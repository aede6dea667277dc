package session

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxVisitors bounds the table of addresses that strangers come from.
const maxVisitors = 1024

// A gate bounds what connections may cost before it is known who is there.
// Addresses that members connect from have a share of their own, so that strangers
// cannot keep a member's streams out.
type gate struct {
	maxPending, perAddress, perSecond int

	mu        sync.Mutex
	strangers int // connections in the handshake
	members   int
	visitors  map[netip.Addr]*visitor
	swept     time.Time
}

type visitor struct {
	pending int
	limit   *rate.Limiter
}

// network is what counts as one address: whoever has an IPv6 address has 2^64 of them.
func network(ip netip.Addr) netip.Addr {
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// enter tells whether a connection is let into the handshake. If so, leave must
// be called once when it is through.
func (g *gate) enter(now time.Time, ip netip.Addr, member bool) (leave func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if member {
		if g.members >= g.maxPending {
			return nil, false
		}
		g.members++
		return g.leaver(&g.members, nil), true
	}
	if g.strangers >= g.maxPending {
		return nil, false
	}
	ip = network(ip)
	v := g.visitors[ip]
	if v == nil {
		if len(g.visitors) >= maxVisitors {
			g.sweep(now)
		}
		if len(g.visitors) >= maxVisitors {
			return nil, false
		}
		v = &visitor{limit: rate.NewLimiter(rate.Limit(g.perSecond), g.perSecond)}
		if g.visitors == nil {
			g.visitors = map[netip.Addr]*visitor{}
		}
		g.visitors[ip] = v
	}
	if v.pending >= g.perAddress || !v.limit.AllowN(now, 1) {
		return nil, false
	}
	v.pending++
	g.strangers++
	return g.leaver(&g.strangers, v), true
}

func (g *gate) leaver(share *int, v *visitor) func() {
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		*share--
		if v != nil {
			v.pending--
		}
	})
}

// sweep drops the visitors that nothing is held against. Once a second is enough:
// a flood from many addresses must not make us do it for each.
func (g *gate) sweep(now time.Time) {
	if now.Sub(g.swept) < time.Second {
		return
	}
	g.swept = now
	for ip, v := range g.visitors {
		if v.pending == 0 && v.limit.TokensAt(now) >= float64(g.perSecond) {
			delete(g.visitors, ip)
		}
	}
}
