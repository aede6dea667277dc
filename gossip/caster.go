package gossip

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/clsync/clsync/signature"
)

// hintEvery is how often at most the head of one tree goes out by multicast.
const hintEvery = 20 * time.Millisecond

// A medium carries datagrams to whoever listens on the same links.
type medium interface {
	// refresh looks at the interfaces again and tells whether any is new.
	refresh() (bool, error)
	// send calls next for each interface, since a datagram that came twice would
	// count as replayed, and tells how many went out.
	send(next func() []byte) (int, error)
	recv(b []byte) (int, netip.Addr, error)
	Close() error
}

// A caster sends beacons and head hints, and hears those of others.
type caster struct {
	id          signature.NodeID
	sessionPort uint16
	gossipPort  func() uint16
	heads       *heads
	pace        pace
	open        func() (medium, error)
	heard       func(d datagram, src netip.Addr, mayReport func() bool)
	stats       *counters
	log         *slog.Logger
	seal        atomic.Pointer[seal]

	mu      sync.Mutex
	pending map[string]struct{} // trees whose head is to be sent; at most MaxTrees
	kick    chan struct{}

	counter uint64 // of datagrams; the sending goroutine's own
}

// hint asks for the newest head of tree to be sent.
func (k *caster) hint(tree string) {
	k.mu.Lock()
	k.pending[tree] = struct{}{}
	k.mu.Unlock()
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// run sends and hears until ctx ends. Multicast is a convenience: where it does
// not work it is tried again, and nothing else stops.
func (k *caster) run(ctx context.Context) error {
	said := ""
	for ctx.Err() == nil {
		m, err := k.open()
		if err == nil {
			err = k.serve(ctx, m)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err.Error() != said { // once, not every ten seconds
			said = err.Error()
			k.log.Warn("multicast", "err", err)
		}
		select {
		case <-time.After(k.pace.rescan):
		case <-ctx.Done():
		}
	}
	return nil
}

func (k *caster) serve(ctx context.Context, m medium) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return k.listen(m) })
	g.Go(func() error { return k.speak(ctx, m) })
	g.Go(func() error {
		<-ctx.Done()
		return m.Close() // ends listen
	})
	return g.Wait()
}

// listen reads datagrams until the medium is closed.
func (k *caster) listen(m medium) error {
	g := newGuard()
	b := make([]byte, 2*MaxMessage)
	for {
		n, src, err := m.recv(b)
		if err != nil {
			return err
		}
		k.take(g, time.Now(), b[:n], src)
	}
}

// take decides about one datagram: form, rate, signature, replay, in the order of
// what they cost.
func (k *caster) take(g *guard, now time.Time, b []byte, src netip.Addr) {
	s := *k.seal.Load()
	if !s.ours(b) {
		k.stats.badDatagrams.Add(1)
		return
	}
	if !g.admit(now, src) {
		k.stats.rateLimited.Add(1)
		return
	}
	d, err := s.open(b)
	switch {
	case errors.Is(err, errHMAC):
		k.stats.badHMAC.Add(1)
		return
	case err != nil:
		k.stats.badDatagrams.Add(1)
		return
	}
	if d.node == k.id && d.boot == k.heads.life() {
		return // our own, looped back so that others on this machine hear it
	}
	if !g.fresh(d) {
		k.stats.replayed.Add(1)
		return
	}
	if d.kind == kindHint {
		k.stats.hintsReceived.Add(1)
	} else {
		k.stats.beaconsReceived.Add(1)
	}
	k.heard(d, src, func() bool { return g.mayReport(now, d.node) })
}

// speak sends beacons by the clock and hints as they come.
func (k *caster) speak(ctx context.Context, m medium) error {
	var (
		now    = time.Now()
		scan   = now
		beacon = now.Add(k.pace.beacons[0])
		early  = k.pace.beacons
		last   = map[string]time.Time{} // per tree; at most MaxTrees
		limit  = rate.NewLimiter(sendRate, sendBurst)
		timer  = time.NewTimer(0)
		said   string
	)
	defer timer.Stop()
	for {
		if now = time.Now(); !now.Before(scan) {
			fresh, err := m.refresh()
			if err != nil && err.Error() != said {
				said = err.Error()
				k.log.Warn("interfaces", "err", err)
			}
			if fresh {
				early, beacon = k.pace.beacons, now.Add(k.pace.beacons[0])
			}
			scan = now.Add(k.pace.rescan)
		}
		if !now.Before(beacon) {
			k.send(m, datagram{kind: kindBeacon}, &k.stats.beaconsSent)
			every := k.pace.beaconEvery
			if len(early) > 1 {
				early = early[1:]
				every = early[0]
			}
			beacon = now.Add(every*4/5 + rand.N(every*2/5+1))
		}
		next := scan
		if beacon.Before(next) {
			next = beacon
		}
		for _, tree := range k.due() {
			at := last[tree].Add(hintEvery)
			if !now.Before(at) && !limit.AllowN(now, 1) {
				at = now.Add(hintEvery / 2)
			}
			if now.Before(at) {
				if at.Before(next) {
					next = at
				}
				continue
			}
			k.done(tree)
			last[tree] = now
			if h, ok := k.heads.get(tree); ok {
				k.send(m, datagram{kind: kindHint, tree: h.tree, seq: h.seq, digest: h.digest}, &k.stats.hintsSent)
			}
		}
		timer.Reset(time.Until(next))
		select {
		case <-timer.C:
		case <-k.kick:
		case <-ctx.Done():
			return nil
		}
	}
}

func (k *caster) due() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	trees := make([]string, 0, len(k.pending))
	for t := range k.pending {
		trees = append(trees, t)
	}
	return trees
}

func (k *caster) done(tree string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.pending, tree)
}

func (k *caster) send(m medium, d datagram, sent *atomic.Uint64) {
	s := *k.seal.Load()
	d.node, d.sessionPort, d.gossipPort, d.boot = k.id, k.sessionPort, k.gossipPort(), k.heads.life()
	n, err := m.send(func() []byte {
		k.counter++
		d.counter = k.counter
		return s.close(d)
	})
	sent.Add(uint64(n))
	if err != nil {
		k.stats.sendErrors.Add(1)
		k.log.Debug("send datagram", "err", err)
	}
}
