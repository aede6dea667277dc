package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/clsync/clsync/node/replica"
	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/transfer/message"
	"github.com/clsync/clsync/transfer/session"
)

// inbound takes in a frame, or the begin or end of a session. It returns the event
// that the core is to see, if any.
func (t *tree) inbound(ctx context.Context, in inbound) replica.Event {
	switch {
	case in.up:
		old, serving := t.sessions[in.from], new(int)
		if old != nil {
			serving = old.serving
		}
		t.endSession(in.from)
		t.sessions[in.from] = &peerSession{serving: serving}
		h := t.head()
		h.Begin = true
		t.send(in.from, message.TypeHead, h.Encode())
		if old != nil { // no cut may go before the peer has sent its head again
			return replica.PeerDown{ID: in.from}
		}
		return nil
	case in.down:
		if t.sessions[in.from] == nil {
			return nil
		}
		t.endSession(in.from)
		return replica.PeerDown{ID: in.from}
	}
	s := t.sessions[in.from]
	if s == nil || s.rogue {
		return nil // of a session that has ended, or is about to
	}
	ev, err := t.decode(ctx, in, s)
	if err != nil {
		s.rogue, s.taking, s.held = true, nil, nil
		t.node.rogue(in.from, fmt.Errorf("tree %s: %w", t.name, err))
		return nil
	}
	return ev
}

func (t *tree) endSession(id signature.NodeID) {
	if s := t.sessions[id]; s != nil {
		if s.stream != nil {
			s.stream.stop()
		}
		delete(t.sessions, id)
		t.fetches.abandon(id)
	}
}

// ErrProtocol is why a session ends whose peer breaks the protocol.
var ErrProtocol = errors.New("protocol broken")

func (t *tree) decode(ctx context.Context, in inbound, s *peerSession) (replica.Event, error) {
	if in.typ != message.TypeHead && !s.open {
		return nil, nil // sent before the peer knew that we begin anew
	}
	switch in.typ {
	case message.TypeHead:
		h, err := message.DecodeHead(in.payload)
		if err != nil {
			return nil, err
		}
		if err := t.neverMade(h.Known); err != nil {
			return nil, err
		}
		if !s.open || h.Begin {
			if h.Begin {
				if s.begins++; s.begins > maxBegins {
					return nil, fmt.Errorf("%w: the tree is begun %d times", ErrProtocol, s.begins)
				}
				t.endSession(in.from)
				s = &peerSession{begins: s.begins, serving: s.serving}
				t.sessions[in.from] = s
				t.send(in.from, message.TypeHead, t.head().Encode())
			}
			s.open, s.known = true, h.Known
			return replica.PeerUp{ID: in.from, Known: h.Known, Landed: h.Landed, ReceiveOnly: h.ReceiveOnly}, nil
		}
		s.known = h.Known
		return replica.HeadIn{ID: in.from, Known: h.Known, Landed: h.Landed}, nil
	case message.TypeCut:
		return t.takePage(in, s)
	case message.TypeClose:
		if _, err := message.DecodeClose(in.payload); err != nil {
			return nil, err
		}
		t.endSession(in.from)
		t.sessions[in.from] = &peerSession{begins: s.begins, serving: s.serving}
		return replica.PeerDown{ID: in.from}, nil
	case message.TypeAck:
		a, err := message.DecodeAck(in.payload)
		if err == nil && a.Cut > s.nextCut {
			err = fmt.Errorf("%w: ack of cut %d, of %d sent", ErrProtocol, a.Cut, s.nextCut)
		}
		if err != nil || a.Cut != s.sending || s.sending == 0 {
			return nil, err // a late ack of a cut that was given up says nothing
		}
		s.sending = 0
		return replica.Acked{ID: in.from, OK: true}, nil
	case message.TypeWant:
		w, err := message.DecodeWant(in.payload)
		if err != nil {
			return nil, err
		}
		t.serve(ctx, in.from, w, s)
		return nil, nil
	case message.TypeDone:
		d, err := message.DecodeDone(in.payload)
		if err != nil {
			return nil, err
		}
		t.fetches.answered(in.from, d)
		return nil, nil
	}
	return nil, fmt.Errorf("%w: frame type %d", ErrProtocol, in.typ)
}

// maxBegins bounds how often a peer begins a tree anew within one session: each time
// it gets all that it says it lacks.
const maxBegins = 1000

// maxCuts bounds what the cuts that are not complete yet take in memory, those of
// all peers together. About two million paths are as much.
const maxCuts = 1 << 30

// takePage keeps a page aside. The last one makes the cut whole.
func (t *tree) takePage(in inbound, s *peerSession) (replica.Event, error) {
	p, err := message.DecodeCutPage(in.payload)
	if err != nil {
		return nil, err
	}
	if p.Page == 0 {
		if s.taking != nil || s.held != nil {
			return nil, fmt.Errorf("%w: cut %d begins before the last one has ended", ErrProtocol, p.Cut)
		}
		s.taking = &cutIn{id: p.Cut, dots: signature.Knowledge{}}
	}
	c := s.taking
	if c == nil || c.id != p.Cut || c.next != p.Page {
		return nil, fmt.Errorf("%w: page %d of cut %d out of order", ErrProtocol, p.Page, p.Cut)
	}
	for _, l := range p.Listings {
		for _, v := range l.Versions {
			if v.Dot.Actor == t.actor && v.Dot.Seq > t.core.Seq() {
				return nil, fmt.Errorf("%w: %s lists %v, which this node never made", ErrProtocol, l.Path.Quote(), v.Dot)
			}
			c.dots[v.Dot.Actor] = max(c.dots[v.Dot.Actor], v.Dot.Seq)
		}
		c.weight += 64 + len(l.Path) + replica.Weight(l.Versions)
	}
	if len(c.dots) > signature.MaxActors {
		return nil, fmt.Errorf("%w: a cut of more than %d actors", ErrProtocol, signature.MaxActors)
	}
	c.listings = append(c.listings, p.Listings...)
	c.next++
	if !p.Last {
		return nil, t.makeRoom(in.from, s)
	}
	s.taking = nil
	if !p.Knowledge.CoversAll(c.dots) {
		return nil, fmt.Errorf("%w: cut %d lists what its knowledge does not cover", ErrProtocol, p.Cut)
	}
	if err := t.neverMade(p.Knowledge); err != nil {
		return nil, err
	}
	h := &heldCut{cutIn: c, known: p.Knowledge, since: time.Now()}
	if _, rests := t.hearsay(in.from, p.Knowledge); rests {
		s.held = h
		return nil, nil
	}
	s.acks = p.Cut
	return h.event(in.from), nil
}

// makeRoom gives up the greatest of the cuts that are not complete where all of them
// together are too much.
func (t *tree) makeRoom(from signature.NodeID, s *peerSession) error {
	sum, most := 0, s
	for id, o := range t.sessions {
		if o.taking == nil {
			continue
		}
		sum += o.taking.weight
		if o.taking.weight > most.taking.weight {
			from, most = id, o
		}
	}
	if sum <= maxCuts {
		return nil
	}
	err := fmt.Errorf("%w: a cut of %d listings and no end, too big for this node", ErrProtocol, len(most.taking.listings))
	if most == s {
		return err
	}
	most.rogue, most.taking = true, nil
	t.node.rogue(from, fmt.Errorf("tree %s: %w", t.name, err))
	return nil
}

// neverMade tells whether a peer claims to know changes that this node has never made.
// It lies, or this node's index was put back to an older state, or the node was cloned:
// nothing of the peer may be taken in before a person has looked.
func (t *tree) neverMade(k signature.Knowledge) error {
	if seq := k[t.actor]; seq > t.core.Seq() {
		return fmt.Errorf("%w: peer knows change %d of this node, which has made %d: this node's index was restored or copied, or the peer lies",
			ErrProtocol, seq, t.core.Seq())
	}
	return nil
}

func (t *tree) ack(id signature.NodeID) {
	if s := t.sessions[id]; s != nil {
		t.sendSoon(id, s, message.TypeAck, message.Ack{Tree: t.name, Cut: s.acks}.Encode())
	}
}

// sendHeads tells all peers what is known and landed, and gossip the same in brief.
func (t *tree) sendHeads() {
	h := t.head()
	frame := h.Encode()
	for id, s := range t.sessions {
		t.sendSoon(id, s, message.TypeHead, frame)
	}
	t.node.announce(t.name, h)
}

// sendSoon sends a small frame, now or once there is room for it: a cut on its way
// may fill the peer's queue for as long as it takes.
func (t *tree) sendSoon(id signature.NodeID, s *peerSession, typ byte, payload []byte) {
	s.outbox.put(typ, payload)
	t.flush(id, s)
}

func (t *tree) flush(id signature.NodeID, s *peerSession) {
	err := s.outbox.flush(time.Now(), func(typ byte, payload []byte) error { return t.node.hub.Send(id, typ, payload) })
	if err != nil {
		t.node.hub.Drop(id, fmt.Errorf("send to peer: %w", err))
	}
}

// send sends the head that begins a tree, which nothing may overtake. A peer that takes
// nothing is dropped: what it missed, it gets at its next session.
func (t *tree) send(id signature.NodeID, typ byte, payload []byte) {
	switch err := t.node.hub.Send(id, typ, payload); {
	case err == nil, errors.Is(err, session.ErrGone):
	default:
		t.node.hub.Drop(id, fmt.Errorf("send to peer: %w", err))
	}
}

// sendCut streams a cut, waiting where the peer's queue is full.
func (t *tree) sendCut(ctx context.Context, c replica.CutOut) {
	s := t.sessions[c.To]
	if s == nil {
		return // its end is on the way to the core
	}
	s.nextCut++
	id := s.nextCut
	s.sending = id
	// A small one goes at once, if there is room. One that must wait, or be cut into
	// pages first, is not the tree's goroutine's to send.
	var late []byte
	if len(c.Cut.Listings) < smallCut {
		err := message.Pages(t.name, id, c.Cut.Listings, c.Cut.Knowledge, func(b []byte) error {
			if late != nil {
				return session.ErrFull // a second page, after one that must wait
			}
			err := t.node.hub.Send(c.To, message.TypeCut, b)
			if errors.Is(err, session.ErrFull) {
				late = b
				return nil
			}
			return err
		})
		if err == nil && late == nil || errors.Is(err, session.ErrGone) {
			return
		}
	}
	st := &cutStream{}
	s.stream = st
	t.background.Go(func() error {
		skip := late // pages before it have gone
		err := message.Pages(t.name, id, c.Cut.Listings, c.Cut.Knowledge, func(b []byte) error {
			if skip != nil && !bytes.Equal(b, skip) {
				return nil
			}
			skip = nil
			return t.sendPatiently(ctx, func() error {
				return st.send(func() error { return t.node.hub.Send(c.To, message.TypeCut, b) })
			})
		})
		// A broken-off cut counts for nothing; the next session begins with another
		// one. If this session has ended already, that is not the peer's fault.
		if err != nil && !errors.Is(err, session.ErrGone) && ctx.Err() == nil {
			t.node.hub.Drop(c.To, fmt.Errorf("cut %d of tree %s could not be sent: %w", id, t.name, err))
		}
		return nil
	})
}

// A cutStream is a cut on its way to a peer: after stop no page of it goes out, not
// even one behind the head that begins the tree anew.
type cutStream struct {
	mu      sync.Mutex
	stopped bool
}

func (s *cutStream) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
}

func (s *cutStream) send(page func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return session.ErrGone
	}
	return page()
}

// smallCut is the number of listings up to which a cut is sent by the tree's
// goroutine.
const smallCut = 1000

// sendPatiently waits for room in the peer's queue, up to half a minute.
func (t *tree) sendPatiently(ctx context.Context, send func() error) error {
	for start := time.Now(); ; {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err := send()
		if !errors.Is(err, session.ErrFull) || time.Since(start) > 30*time.Second {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}
