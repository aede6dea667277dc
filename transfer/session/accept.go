package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/clsync/clsync/transfer/trust"
)

// acceptLoop takes connections until the Hub ends. Running out of descriptors is
// no reason to end.
func (h *Hub) acceptLoop() error {
	pause := 5 * time.Millisecond
	for {
		raw, err := h.ln.Accept()
		if h.ctx.Err() != nil {
			if err == nil {
				_ = raw.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept peers: %w", err)
		}
		if err != nil {
			if _, ok := h.reports.first(time.Now(), "accept"); ok {
				h.log.Warn("accept", "err", err)
			}
			select {
			case <-h.ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		h.counts.accepted.Add(1)
		ip := remoteIP(raw)
		h.mu.Lock()
		member := h.addrs[ip] > 0
		h.mu.Unlock()
		leave, ok := h.gate.enter(time.Now(), ip, member)
		if !ok {
			h.counts.turnedAway.Add(1)
			_ = raw.Close()
			continue
		}
		if !h.spawn(func() { defer leave(); h.receive(raw, leave) }) {
			leave()
			_ = raw.Close()
		}
	}
}

// receive takes a connection from TLS to its session or streams.
func (h *Hub) receive(raw net.Conn, leave func()) {
	wire := newConn(raw)
	c := tls.Server(wire, h.cfg.Identity.TLSServer())
	addr := raw.RemoteAddr().String()
	done := context.AfterFunc(h.ctx, func() { _ = raw.Close() })
	defer done()
	p, err := h.shake(h.ctx, c)
	if err != nil {
		h.counts.handshakes.Add(1)
		h.refuse(addr, "", explain(err))
		_ = raw.Close()
		return
	}
	if err := c.SetDeadline(time.Now().Add(h.cfg.HandshakeTimeout)); err != nil {
		_ = raw.Close()
		return
	}
	var preface [1]byte
	if _, err := c.Read(preface[:]); err != nil {
		h.counts.handshakes.Add(1)
		h.refuse(addr, p.Name, explain(err))
		_ = raw.Close()
		return
	}
	err = h.admit(p)
	switch preface[0] {
	case prefaceControl:
		if err == nil {
			err = h.greetAccepted(c, p)
		}
		if err != nil {
			h.turnDown(c, declineFrame(err))
		}
		if errors.Is(err, errDuplicate) { // no fault of anybody
			_ = raw.Close()
			return
		}
	case prefaceStream:
		if err == nil {
			err = h.serve(c, wire, p, leave)
		}
		if err != nil {
			h.turnDown(c, rejectChunk(err.Error()))
		}
	default:
		err = fmt.Errorf("%w: preface %#02x", ErrFrame, preface[0])
	}
	if err != nil {
		h.counts.refused.Add(1)
		h.refuse(addr, p.Name, err)
		_ = raw.Close()
	}
}

// shake does the TLS handshake and says who is there.
func (h *Hub) shake(ctx context.Context, c *tls.Conn) (Peer, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.HandshakeTimeout)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		return Peer{}, err
	}
	id, name, err := trust.PeerOf(c.ConnectionState())
	return Peer{ID: id, Name: name}, err
}

// admit tells whether a member is let in, and pins its name.
func (h *Hub) admit(p Peer) error {
	if p.ID == h.self {
		return errSelf
	}
	now := time.Now()
	h.mu.Lock()
	until := h.strikes[p.ID].until
	h.mu.Unlock()
	if now.Before(until) {
		return errQuarantined
	}
	return h.cfg.Nodes.Admit(now, p.Name, p.ID)
}
