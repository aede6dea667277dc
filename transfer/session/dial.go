package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/clsync/clsync/signature"
)

const (
	prefaceControl = 1
	prefaceStream  = 2
)

// maxDials bounds the dials under way at once, and how many begin per second.
const maxDials = 16

// Meet says that a peer may be at addr (host:port); the zero id: somebody may.
// Addresses where a peer was found are tried, with back-off, whenever there is no
// session with it, until Forget; one that never worked for an hour after the last
// hint, so a caller that knows of one repeats it.
func (h *Hub) Meet(id signature.NodeID, addr string) {
	if id == h.self {
		return
	}
	h.mu.Lock()
	h.places.meet(time.Now(), id, addr)
	h.mu.Unlock()
	h.look()
}

// Forget drops an address, and all addresses of a peer if id is not zero. A live
// session goes on.
func (h *Hub) Forget(id signature.NodeID, addr string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.places.forget(id, addr)
}

// look wakes the dial loop.
func (h *Hub) look() {
	select {
	case h.poke <- struct{}{}:
	default:
	}
}

// dialLoop dials what is due, and looks after what goes by time.
func (h *Hub) dialLoop() {
	sweep := min(time.Second, max(h.cfg.IdleFor/4, 10*time.Millisecond))
	for h.ctx.Err() == nil {
		now := time.Now()
		h.mu.Lock()
		due, again := h.due(now)
		h.mu.Unlock()
		for _, at := range due {
			if !h.spawn(func() { h.try(at.addr); h.look() }) {
				return
			}
		}
		wait := sweep
		if !again.IsZero() {
			wait = min(wait, time.Until(again))
		}
		timer := time.NewTimer(max(wait, time.Millisecond))
		select {
		case <-timer.C:
		case <-h.poke:
		case <-h.ctx.Done():
		}
		timer.Stop()
		h.sweep(time.Now())
	}
}

// due picks the places to dial now. h.mu is held.
func (h *Hub) due(now time.Time) ([]*place, time.Time) {
	due, again := h.places.due(now, func(id signature.NodeID) bool {
		return h.live[id] == nil && !now.Before(h.strikes[id].until)
	})
	for len(due) > maxDials-h.dialling { // later: a dial that ends wakes the loop
		due[len(due)-1].dialing = false
		due = due[:len(due)-1]
	}
	h.dialling += len(due)
	return due, again
}

// try dials one place and notes what came of it.
func (h *Hub) try(addr string) {
	h.counts.dials.Add(1)
	p, err := h.dial(addr)
	now := time.Now()
	h.mu.Lock()
	h.dialling--
	switch {
	case err == nil:
		h.places.reached(now, addr, p.ID)
	case errors.Is(err, errSelf):
		h.places.own(now, addr)
	default:
		h.counts.failedDial.Add(1)
		h.places.failed(now, addr, rand.Float64())
	}
	h.mu.Unlock()
	if err != nil && !errors.Is(err, errSelf) && h.ctx.Err() == nil {
		h.refuse(addr, p.Name, err)
	}
}

// dial opens a control connection. It returns without an error if a session with
// whoever is there lives: this one or another.
func (h *Hub) dial(addr string) (Peer, error) {
	c, _, p, err := h.connect(h.ctx, addr, signature.NodeID{})
	if err != nil {
		return p, err
	}
	done := context.AfterFunc(h.ctx, func() { hangUp(c) })
	defer done()
	if err = h.admit(p); err == nil {
		err = explain(h.greetDialled(c, p))
	}
	if err != nil {
		hangUp(c)
		if errors.Is(err, errDuplicate) {
			return p, nil
		}
	}
	return p, err
}

// connect dials and does the TLS handshake.
func (h *Hub) connect(ctx context.Context, addr string, expect signature.NodeID) (*tls.Conn, *conn, Peer, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.HandshakeTimeout)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, Peer{}, err
	}
	wire := newConn(raw)
	c := tls.Client(wire, h.cfg.Identity.TLSClient(expect))
	p, err := h.shake(ctx, c)
	if err == nil {
		err = c.SetDeadline(time.Now().Add(h.cfg.HandshakeTimeout))
	}
	if err != nil {
		_ = raw.Close()
		return nil, nil, p, fmt.Errorf("meet %s: %w", addr, explain(err))
	}
	return c, wire, p, nil
}
