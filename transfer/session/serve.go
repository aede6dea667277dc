package session

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/clsync/clsync/signature"
)

// serve tells of the streams on a connection that a peer dialled, one after another.
func (h *Hub) serve(c *tls.Conn, wire *conn, p Peer, leave func()) error {
	s, err := h.await(p.ID)
	if err != nil {
		return err
	}
	l := newLine(c, wire, &s.streams, false)
	if err := s.streams.add(l); err != nil {
		return err
	}
	leave()
	wire.gathering()
	defer s.streams.wg.Done()
	wait := h.cfg.HandshakeTimeout
	for {
		again, err := h.serveOne(s, l, wait)
		if !again {
			if errors.Is(err, ErrFrame) {
				h.counts.malformed.Add(1)
				h.log.Warn("stream", "peer", p.Name, "err", err)
			}
			l.fail(io.EOF)
			return nil
		}
		wait = 2 * h.cfg.IdleFor // the dialler gives up first
	}
}

// await waits until a peer has its session: its first stream may be faster.
func (h *Hub) await(id signature.NodeID) (*session, error) {
	timer := time.NewTimer(h.cfg.HandshakeTimeout)
	defer timer.Stop()
	for {
		h.mu.Lock()
		s, changed := h.live[id], h.changed
		h.mu.Unlock()
		if s != nil {
			select {
			case <-s.up:
				return s, nil
			case <-s.done:
				return nil, ErrGone
			case <-timer.C:
				return nil, ErrGone
			}
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil, ErrGone
		case <-h.ctx.Done():
			return nil, errStopped
		}
	}
}

// serveOne tells of one stream, waits until it is over, and says whether the line
// may carry another.
func (h *Hub) serveOne(s *session, l *line, wait time.Duration) (bool, error) {
	if err := l.c.SetDeadline(time.Now().Add(wait)); err != nil {
		return false, err
	}
	kind, n, err := readHead(l.r)
	if err != nil {
		return false, err
	}
	if kind != kindOpen {
		return false, fmt.Errorf("%w: chunk of kind %d before open", ErrFrame, kind)
	}
	header := make([]byte, n)
	if _, err := io.ReadFull(l.r, header); err != nil {
		return false, err
	}
	if err := l.c.SetDeadline(time.Time{}); err != nil {
		return false, err
	}
	h.counts.served.Add(1)
	st := newStream(h, l, s.peer.ID, header, func() {})
	select {
	case h.events <- Incoming{From: s.peer.ID, Header: header, Stream: st}:
	case <-l.dead:
		return false, nil
	case <-h.ctx.Done():
		return false, nil
	}
	select {
	case <-st.over:
		return st.clean, nil
	case <-l.dead:
		return false, nil
	}
}
