package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
		t.endSession(in.from)
		t.sessions[in.from] = &peerSession{}
		h := t.head()
		h.Begin = true
		t.send(in.from, message.TypeHead, h.Encode())
		return nil
	case in.down:
		if t.sessions[in.from] == nil {
			return nil
		}
		t.endSession(in.from)
		return replica.PeerDown{ID: in.from}
	}
	s := t.sessions[in.from]
	if s == nil {
		return nil // of a session that has ended
	}
	ev, err := t.decode(ctx, in, s)
	if err != nil {
		t.node.rogue(in.from, fmt.Errorf("tree %s: %w", t.name, err))
		return nil
	}
	return ev
}

func (t *tree) endSession(id signature.NodeID) {
	if s := t.sessions[id]; s != nil {
		if s.cancel != nil {
			s.cancel()
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
		if !s.open || h.Begin {
			if h.Begin {
				t.endSession(in.from)
				s = &peerSession{}
				t.sessions[in.from] = s
				t.send(in.from, message.TypeHead, t.head().Encode())
			}
			s.open = true
			return replica.PeerUp{ID: in.from, Known: h.Known, Landed: h.Landed, ReceiveOnly: h.ReceiveOnly}, nil
		}
		return replica.HeadIn{ID: in.from, Known: h.Known, Landed: h.Landed}, nil
	case message.TypeCut:
		return t.takePage(in, s)
	case message.TypeAck:
		a, err := message.DecodeAck(in.payload)
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

// maxCut bounds the listings of a cut that is kept until its last page is here.
const maxCut = 8 << 20

// takePage keeps a page aside. The last one makes the cut whole.
func (t *tree) takePage(in inbound, s *peerSession) (replica.Event, error) {
	p, err := message.DecodeCutPage(in.payload)
	if err != nil {
		return nil, err
	}
	if p.Page == 0 {
		s.taking = &cutIn{id: p.Cut}
	}
	c := s.taking
	if c == nil || c.id != p.Cut || c.next != p.Page {
		return nil, fmt.Errorf("%w: page %d of cut %d out of order", ErrProtocol, p.Page, p.Cut)
	}
	if len(c.listings)+len(p.Listings) > maxCut {
		return nil, fmt.Errorf("%w: cut of more than %d listings", ErrProtocol, maxCut)
	}
	for _, l := range p.Listings {
		for _, v := range l.Versions {
			if v.Dot.Actor.Node == t.node.id && !t.ourOwn(v.Dot) {
				return nil, fmt.Errorf("%w: %s lists %v, which this node never made", ErrProtocol, l.Path.Quote(), v.Dot)
			}
		}
	}
	c.listings = append(c.listings, p.Listings...)
	c.next++
	if !p.Last {
		return nil, nil
	}
	s.taking, s.acks = nil, p.Cut
	return replica.CutIn{From: in.from, Cut: replica.Cut{Listings: c.listings, Knowledge: p.Knowledge}}, nil
}

// ourOwn tells whether a dot that bears this node's name can be one of its own: of
// an earlier incarnation, or one that was used.
func (t *tree) ourOwn(d signature.Dot) bool {
	return d.Actor != t.actor || d.Seq <= t.core.Seq()
}

func (t *tree) ack(id signature.NodeID) {
	if s := t.sessions[id]; s != nil {
		t.send(id, message.TypeAck, message.Ack{Tree: t.name, Cut: s.acks}.Encode())
	}
}

// sendHeads tells all peers what is known and landed, and gossip the same in brief.
func (t *tree) sendHeads() {
	h := t.head()
	frame := h.Encode()
	for id := range t.sessions {
		t.send(id, message.TypeHead, frame)
	}
	t.node.announce(t.name, h)
}

// send sends a small frame. A peer that takes nothing is dropped: what it missed,
// it gets at its next session.
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
	ctx, s.cancel = context.WithCancel(ctx)
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
	t.background.Go(func() error {
		skip := late // pages before it have gone
		err := message.Pages(t.name, id, c.Cut.Listings, c.Cut.Knowledge, func(b []byte) error {
			if skip != nil && !bytes.Equal(b, skip) {
				return nil
			}
			skip = nil
			return t.sendPatiently(ctx, c.To, message.TypeCut, b)
		})
		if err != nil {
			t.gaveUp(ctx, c.To, id)
		}
		return nil
	})
}

// smallCut is the number of listings up to which a cut is sent by the tree's
// goroutine.
const smallCut = 1000

// gaveUp ends the session in which a cut could not be sent in whole. A broken-off
// cut counts for nothing; the next session begins with another one.
func (t *tree) gaveUp(ctx context.Context, id signature.NodeID, cut uint64) {
	if ctx.Err() == nil {
		t.node.hub.Drop(id, fmt.Errorf("cut %d of tree %s could not be sent", cut, t.name))
	}
}

// sendPatiently waits for room in the peer's queue, up to half a minute.
func (t *tree) sendPatiently(ctx context.Context, id signature.NodeID, typ byte, payload []byte) error {
	for start := time.Now(); ; {
		err := t.node.hub.Send(id, typ, payload)
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
