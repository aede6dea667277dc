package gossip

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clsync/clsync/signature"
)

const (
	maxLost  = 64 // members that are gone and looked for where they were
	maxFound = 64 // nodes that multicast has heard
	maxJoins = 8  // at a time
)

// A target is an address that is worth to be joined.
type target struct {
	id    signature.NodeID // zero of a seed
	seed  string           // host and port as configured; else empty
	addrs []netip.AddrPort // of a seed: as last resolved
	lost  bool
	next  time.Time
	wait  time.Duration // the last back-off
	busy  bool
}

// A seeker joins seeds, nodes found by multicast, and members that were lost, for
// as long as they are not members. memberlist forgets the dead after a while and
// would never find them again by itself.
type seeker struct {
	log     *slog.Logger
	pace    pace
	port    uint16 // of seeds without one
	join    func(signature.NodeID, netip.AddrPort) error
	member  func(signature.NodeID) bool
	present func(netip.AddrPort) bool // a member, or this node, is there
	lookup  func(ctx context.Context, host string) ([]netip.Addr, error)

	mu      sync.Mutex
	targets map[string]*target
	lost    int
	found   int
	kick    chan struct{} // holds one token after a change
}

func newSeeker(seeds []string, p pace, log *slog.Logger) *seeker {
	s := &seeker{
		log: log, pace: p,
		targets: map[string]*target{},
		kick:    make(chan struct{}, 1),
		lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
	}
	for _, seed := range seeds {
		s.targets["seed "+seed] = &target{seed: seed}
	}
	return s
}

func (s *seeker) rouse() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// hear adds a node that multicast has heard, and tells whether there was room.
func (s *seeker) hear(id signature.NodeID, addr netip.AddrPort) bool {
	key := "node " + addr.String()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.targets[key] != nil {
		return true
	}
	if s.found >= maxFound {
		return false
	}
	s.found++
	s.targets[key] = &target{id: id, addrs: []netip.AddrPort{addr}}
	s.rouse()
	return true
}

// lose adds a member that is gone without a word.
func (s *seeker) lose(id signature.NodeID, addr netip.AddrPort) {
	key := "lost " + id.String()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.targets[key] == nil {
		if s.lost >= maxLost {
			s.log.Warn("too many lost members to look for", "peer", id)
			return
		}
		s.lost++
	}
	s.targets[key] = &target{id: id, addrs: []netip.AddrPort{addr}, lost: true, next: time.Now().Add(s.jitter(s.pace.retryMin))}
	s.rouse()
}

// forget stops looking for a member that is back or has left.
func (s *seeker) forget(id signature.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, t := range s.targets {
		if t.seed == "" && t.id == id {
			s.remove(key, t)
		}
	}
}

func (s *seeker) remove(key string, t *target) {
	if s.targets[key] != t {
		return
	}
	delete(s.targets, key)
	if t.lost {
		s.lost--
	} else {
		s.found--
	}
}

func (s *seeker) jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

// run joins what is to be joined until ctx ends.
func (s *seeker) run(ctx context.Context) error {
	var joins errgroup.Group
	joins.SetLimit(maxJoins)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		timer.Reset(s.start(ctx, &joins))
		select {
		case <-timer.C:
		case <-s.kick:
		case <-ctx.Done():
		}
	}
	return joins.Wait()
}

// start begins all joins that are due and returns how long nothing else will be.
func (s *seeker) start(ctx context.Context, joins *errgroup.Group) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	sleep := time.Hour
	for key, t := range s.targets {
		if t.busy {
			continue // it kicks when it is done
		}
		if d := t.next.Sub(now); d > 0 {
			sleep = min(sleep, d)
			continue
		}
		if s.satisfied(t) {
			if t.seed == "" {
				s.remove(key, t)
				continue
			}
			t.wait, t.next = 0, now.Add(s.pace.check)
			sleep = min(sleep, s.pace.check)
			continue
		}
		// Where all hands are busy, the next to finish kicks.
		t.busy = joins.TryGo(func() error {
			s.attempt(ctx, key, t)
			return nil
		})
	}
	return sleep
}

func (s *seeker) satisfied(t *target) bool {
	if t.seed == "" && s.member(t.id) {
		return true
	}
	for _, a := range t.addrs {
		if s.present(a) {
			return true
		}
	}
	return false
}

// attempt makes one try to join t and sets the time of the next.
func (s *seeker) attempt(ctx context.Context, key string, t *target) {
	addrs, err := s.resolve(ctx, t)
	if err == nil {
		err = s.joinAny(ctx, t.id, addrs)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.busy = false
	if len(addrs) > 0 {
		t.addrs = addrs
	}
	if err != nil {
		t.wait = min(max(2*t.wait, s.pace.retryMin), s.pace.retryMax)
		if ctx.Err() == nil {
			s.log.Debug("join", "peer", key, "err", err)
		}
	} else {
		// It answers, but perhaps by another address than the one it advertises:
		// then it never looks satisfied, and must not be asked all the time.
		t.wait = s.pace.retryMax
	}
	if t.seed == "" && !t.lost {
		// What was only heard is tried once per beacon, no more.
		s.remove(key, t)
	}
	t.next = time.Now().Add(s.jitter(t.wait))
	s.rouse()
}

func (s *seeker) resolve(ctx context.Context, t *target) ([]netip.AddrPort, error) {
	if t.seed == "" {
		return t.addrs, nil
	}
	host, port, err := splitSeed(t.seed, s.port)
	if err != nil {
		return nil, err
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a.Unmap(), port)}, nil
	}
	ips, err := s.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	var addrs []netip.AddrPort
	for _, a := range ips[:min(len(ips), 8)] {
		addrs = append(addrs, netip.AddrPortFrom(a.Unmap(), port))
	}
	return addrs, nil
}

// joinAny joins by the first address that answers. Ours is not asked.
func (s *seeker) joinAny(ctx context.Context, id signature.NodeID, addrs []netip.AddrPort) error {
	err := errors.New("no address")
	for _, a := range addrs {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if s.present(a) {
			return nil
		}
		if err = s.join(id, a); err == nil {
			return nil
		}
	}
	return err
}
