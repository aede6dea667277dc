package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/clsync/clsync/signature"
)

var (
	errSelf        = errors.New("that is ourselves")
	errQuarantined = errors.New("dropped not long ago")
	errTooMany     = errors.New("too many peers")
	errStopped     = errors.New("stopped")
)

// A Hub has this node's sessions. Its methods may be called from many goroutines.
type Hub struct {
	cfg      Config
	log      *slog.Logger
	self     signature.NodeID
	instance instance
	ln       net.Listener
	listen   netip.AddrPort

	counts  counters
	reports reports
	gate    gate
	poke    chan struct{} // capacity 1: the places changed

	ctx    context.Context // of Run
	stop   context.CancelCauseFunc
	events chan<- Event
	wg     sync.WaitGroup

	mu       sync.Mutex
	running  bool
	stopped  bool // nothing may be started any more
	live     map[signature.NodeID]*session
	last     map[signature.NodeID]*session // the latest of each peer, until its Down is told
	ended    map[signature.NodeID]term
	number   uint64 // of the last session that we decided on
	addrs    map[netip.Addr]int
	changed  chan struct{} // closed and replaced when live changes
	places   places
	strikes  map[signature.NodeID]strikes
	dialling int
}

// New makes a Hub and listens, so that Addr is known. Run or Close must follow.
func New(cfg Config) (*Hub, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.defaults()
	h := &Hub{
		cfg: cfg, log: cfg.Logger, self: cfg.Identity.ID(),
		gate:    gate{maxPending: cfg.MaxPending, perAddress: cfg.PerAddress, perSecond: cfg.PerSecond},
		poke:    make(chan struct{}, 1),
		live:    map[signature.NodeID]*session{},
		last:    map[signature.NodeID]*session{},
		ended:   map[signature.NodeID]term{},
		addrs:   map[netip.Addr]int{},
		changed: make(chan struct{}),
		places:  places{min: cfg.BackoffMin, max: cfg.BackoffMax, byAddr: map[string]*place{}},
		strikes: map[signature.NodeID]strikes{},
	}
	h.ctx, h.stop = context.WithCancelCause(context.Background())
	var err error
	if h.instance, err = newInstance(); err != nil {
		return nil, err
	}
	if h.ln, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("listen for peers: %w", err)
	}
	h.listen = h.ln.Addr().(*net.TCPAddr).AddrPort()
	return h, nil
}

// Addr returns where the Hub listens.
func (h *Hub) Addr() net.Addr { return h.ln.Addr() }

// Close ends the Hub: Run returns. It is also for a Hub that never ran.
func (h *Hub) Close() error {
	h.stop(errStopped)
	err := h.ln.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Run accepts, dials and tells events until ctx ends, and then closes events. It
// runs once. What a session has to tell waits until the receiver takes it, and
// the peer's sending waits with it: a receiver must be prompt and must not wait
// for the Hub, other than in Send, Drop, Meet and Forget, which never wait.
// After ctx has ended events may be missing.
func (h *Hub) Run(ctx context.Context, events chan<- Event) error {
	h.mu.Lock()
	if h.running {
		h.mu.Unlock()
		return errors.New("session: Run was called twice")
	}
	h.running, h.events = true, events
	h.mu.Unlock()
	defer close(events)

	end := context.AfterFunc(ctx, func() { h.stop(context.Cause(ctx)) })
	defer end()
	closeListener := context.AfterFunc(h.ctx, func() { _ = h.ln.Close() })
	defer closeListener()

	h.spawn(h.dialLoop)
	err := h.acceptLoop()
	h.stop(errStopped)
	_ = h.ln.Close()

	h.mu.Lock()
	h.stopped = true
	for _, s := range h.live {
		s.end(errStopped)
	}
	h.mu.Unlock()
	h.wg.Wait()
	return err
}

// spawn runs f in a goroutine that Run waits for. After Run's end it does not.
func (h *Hub) spawn(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return false
	}
	h.wg.Go(f)
	return true
}

func (h *Hub) emit(ev Event) {
	select {
	case h.events <- ev:
	case <-h.ctx.Done():
	}
}

// Send queues a frame of a type below 0xf0 for a peer. It never waits: ErrFull
// says that the peer does not keep up, ErrGone that it has no session. The payload
// must not be changed afterwards. A nil error does not say that it arrives.
func (h *Hub) Send(to signature.NodeID, typ byte, payload []byte) error {
	if typ >= firstOwnType || len(payload) > MaxPayload {
		return fmt.Errorf("send %d bytes of type %#02x: %w", len(payload), typ, ErrFrame)
	}
	s := h.session(to)
	if s == nil {
		return ErrGone
	}
	return s.queue.put(frame{typ, payload})
}

func (h *Hub) session(id signature.NodeID) *session {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.live[id]
}

// Peers returns who has a session.
func (h *Hub) Peers() []Peer {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]Peer, 0, len(h.live))
	for _, s := range h.live {
		out = append(out, s.peer)
	}
	return out
}

// Drop ends the session with a peer that broke the rules and leaves it alone for a
// while, longer each time. A frame that was read already may still be told.
func (h *Hub) Drop(id signature.NodeID, reason error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.strike(time.Now(), id)
	if s := h.live[id]; s != nil {
		s.end(fmt.Errorf("%w: %w", ErrDropped, reason))
	}
}
