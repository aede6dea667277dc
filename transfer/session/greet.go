package session

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/clsync/clsync/signature"
)

// errDuplicate: the two have another connection that lives.
var errDuplicate = errors.New("another session lives")

// A candidate is a control connection before it is a session.
type candidate struct {
	c    *tls.Conn
	src  *source
	br   *bufio.Reader // of src
	peer Peer
	said hello
}

func newCandidate(c *tls.Conn, p Peer) candidate {
	src := &source{c: c}
	return candidate{c: c, src: src, br: bufio.NewReaderSize(src, controlBuffer), peer: p}
}

// greetDialled says hello on a connection we dialled and waits for the answer.
func (h *Hub) greetDialled(c *tls.Conn, p Peer) (err error) {
	if err := c.SetDeadline(time.Now().Add(h.cfg.HandshakeTimeout)); err != nil {
		return err
	}
	b, err := h.hello(p.ID)
	if err != nil {
		return err
	}
	if _, err := c.Write(append([]byte{prefaceControl}, b...)); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			h.turnDown(c, declineFrame(err))
		}
	}()
	k := newCandidate(c, p)
	if err := k.hear(); err != nil {
		return err
	}
	if h.decides(p.ID) {
		return h.decide(k, nil)
	}
	return h.follow(k)
}

// greetAccepted answers the hello on a connection that the peer dialled.
func (h *Hub) greetAccepted(c *tls.Conn, p Peer) error {
	k := newCandidate(c, p)
	if err := k.hear(); err != nil {
		return err
	}
	b, err := h.hello(p.ID)
	if err != nil {
		return err
	}
	if h.decides(p.ID) {
		return h.decide(k, b)
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	return h.follow(k)
}

// decides tells whether we, not the peer, decide which connection is kept.
func (h *Hub) decides(id signature.NodeID) bool { return h.self.Compare(id) < 0 }

func (h *Hub) hello(to signature.NodeID) ([]byte, error) {
	payload := h.cfg.Hello()
	if len(payload) > MaxPayload {
		return nil, fmt.Errorf("our hello of %d bytes: %w", len(payload), ErrFrame)
	}
	h.mu.Lock()
	ended := h.ended[to]
	h.mu.Unlock()
	ours := hello{instance: h.instance, listen: h.listen, ended: ended, payload: payload}
	return appendFrame(nil, frame{typeHello, ours.encode()}), nil
}

// hear reads the peer's hello, or why there is none.
func (k *candidate) hear() error {
	f, err := readFrame(k.br, maxFrame)
	if err != nil {
		return fmt.Errorf("hear hello: %w", err)
	}
	if f.typ != typeHello {
		return declined(f)
	}
	if k.said, err = decodeHello(f.payload); err != nil {
		return err
	}
	ip := remoteIP(k.c.NetConn().(*conn).Conn)
	k.peer.Hello = k.said.payload
	k.peer.Addr = k.said.reach(ip).String()
	return nil
}

// declined reads why the peer does not keep a connection.
func declined(f frame) error {
	if f.typ != typeDecline {
		return fmt.Errorf("%w: type %#02x in the handshake", ErrFrame, f.typ)
	}
	d, err := decodeDecline(f.payload)
	switch {
	case err != nil:
		return err
	case d.duplicate:
		return errDuplicate
	}
	return fmt.Errorf("%w: %q", ErrRefusesUs, d.reason)
}

func declineFrame(why error) []byte {
	d := decline{duplicate: errors.Is(why, errDuplicate), reason: why.Error()}
	return appendFrame(nil, frame{typeDecline, d.encode()})
}

// turnDown tells the peer why its connection is not kept, as far as it listens.
// Closing on what it still sends would destroy the reason on its way.
func (h *Hub) turnDown(c *tls.Conn, last []byte) {
	if err := c.SetDeadline(time.Now().Add(byeTime)); err != nil {
		return
	}
	if _, err := c.Write(last); err != nil {
		return
	}
	if err := c.CloseWrite(); err == nil {
		_, _ = io.CopyN(io.Discard, c, 2*maxFrame)
	}
}

// decide keeps the candidate or does not, as the lower node. What is said before
// the verdict goes out with it.
func (h *Hub) decide(k candidate, first []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.may(k); err != nil {
		return err
	}
	h.number++
	return h.start(k, term{h.instance, h.number}, appendFrame(first, frame{typeKeep, encodeKeep(h.number)}))
}

// may tells whether the lower node keeps a candidate. h.mu is held.
func (h *Hub) may(k candidate) error {
	old := h.live[k.peer.ID]
	if old == nil {
		if len(h.live) >= h.cfg.MaxPeers {
			return errTooMany
		}
		return nil
	}
	if k.said.instance == old.said.instance && !k.said.ended.covers(old.term) {
		return errDuplicate
	}
	return nil
}

// follow waits for the lower node's verdict.
func (h *Hub) follow(k candidate) error {
	f, err := readFrame(k.br, maxFrame)
	if err != nil {
		return fmt.Errorf("hear the verdict: %w", err)
	}
	if f.typ != typeKeep {
		return declined(f)
	}
	number, err := decodeKeep(f.payload)
	if err != nil {
		return err
	}
	t := term{k.said.instance, number}
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.live[k.peer.ID]
	switch {
	case h.ended[k.peer.ID].covers(t), old != nil && old.term.covers(t):
		return errDuplicate // decided before the one we have, heard after
	case old == nil && len(h.live) >= h.cfg.MaxPeers:
		return errTooMany
	}
	return h.start(k, t, nil)
}

// start puts a session in the place of what lived before. h.mu is held.
func (h *Hub) start(k candidate, t term, first []byte) error {
	if h.stopped || h.ctx.Err() != nil {
		return errStopped
	}
	id := k.peer.ID
	if old := h.live[id]; old != nil {
		old.end(ErrReplaced)
		h.drop(old)
	}
	s := newSession(h, k, t, first)
	s.prev = h.last[id]
	h.live[id], h.last[id] = s, s
	h.addrs[s.ip]++
	h.wg.Go(s.run)
	h.places.meet(time.Now(), id, s.peer.Addr)
	close(h.changed)
	h.changed = make(chan struct{})
	return nil
}

// drop takes s out of what lives. h.mu is held.
func (h *Hub) drop(s *session) {
	if s.dropped {
		return
	}
	s.dropped = true
	if h.live[s.peer.ID] == s {
		delete(h.live, s.peer.ID)
	}
	if h.addrs[s.ip]--; h.addrs[s.ip] <= 0 {
		delete(h.addrs, s.ip)
	}
	if old, ok := h.ended[s.peer.ID]; !ok || old.decider != s.term.decider || old.number < s.term.number {
		h.ended[s.peer.ID] = s.term
	}
}
