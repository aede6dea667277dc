package session

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"time"
)

const (
	controlBuffer = 16 << 10
	// byeTime is how long the last word to a peer may take.
	byeTime = 500 * time.Millisecond
	// stallTimes DeadAfter is how long a peer that is heard may take nothing of what
	// we write, before its session ends.
	stallTimes = 6
)

// A session is one control connection that was kept. Three goroutines live in it:
// run, which tells events, and the reader and the writer that it waits for.
type session struct {
	hub   *Hub
	c     *tls.Conn
	br    *bufio.Reader
	ip    netip.Addr
	peer  Peer
	said  hello
	term  term
	first []byte   // to be written before all else
	prev  *session // whose Down is told before our Up
	queue *queue

	ctx     context.Context
	cancel  context.CancelCauseFunc
	up      chan struct{} // closed when Up was told
	done    chan struct{} // closed when all was told
	dropped bool          // no longer live; under hub.mu

	streams streams
}

func newSession(h *Hub, k candidate, t term, first []byte) *session {
	s := &session{
		hub: h, c: k.c, br: k.br, peer: k.peer, said: k.said, term: t, first: first,
		ip:    remoteIP(k.c.NetConn().(*conn).Conn),
		queue: newQueue(h.cfg.QueueFrames, h.cfg.QueueBytes),
		up:    make(chan struct{}), done: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancelCause(h.ctx)
	s.streams.init(h.cfg)
	k.src.s = s
	return s
}

// end makes the session end; the first reason counts.
func (s *session) end(why error) { s.cancel(why) }

// run is the session's life.
func (s *session) run() {
	h := s.hub
	defer close(s.done)
	began := time.Now()
	stop := context.AfterFunc(s.ctx, func() {
		// The reader ends now; the writer has time for a last word.
		_ = s.c.SetReadDeadline(time.Unix(1, 0))
		_ = s.c.SetWriteDeadline(time.Now().Add(byeTime))
	})
	defer stop()
	if err := s.open(); err != nil {
		s.end(err)
	}
	if s.prev != nil {
		<-s.prev.done
		s.prev = nil
	}
	told := s.ctx.Err() == nil
	var wg sync.WaitGroup
	if told {
		h.counts.sessions.Add(1)
		h.log.Info("session", "peer", s.peer.Name, "node", s.peer.ID, "addr", s.peer.Addr)
		h.emit(Up{s.peer})
		close(s.up)
		wg.Go(func() { s.end(s.read()) })
		wg.Go(func() { s.end(s.write()) })
	}
	<-s.ctx.Done()
	why := context.Cause(s.ctx)
	s.queue.close()
	h.mu.Lock()
	h.drop(s)
	if errors.Is(why, ErrFrame) {
		h.counts.malformed.Add(1)
		h.strike(time.Now(), s.peer.ID)
	}
	h.mu.Unlock()
	s.streams.end(fmt.Errorf("%w: %w", ErrGone, why))
	wg.Wait()
	hangUp(s.c)
	if told {
		h.log.Info("session ended", "peer", s.peer.Name, "node", s.peer.ID, "err", why)
		h.emit(Down{ID: s.peer.ID, Err: why})
	}
	h.mu.Lock()
	if h.last[s.peer.ID] == s {
		delete(h.last, s.peer.ID)
	}
	h.places.lost(time.Now(), s.peer.ID, time.Since(began), rand.Float64())
	h.mu.Unlock()
	h.look()
}

// open says what is still to be said of the handshake.
func (s *session) open() error {
	if err := s.c.SetWriteDeadline(time.Now().Add(s.hub.cfg.HandshakeTimeout)); err != nil {
		return err
	}
	if len(s.first) == 0 {
		return nil
	}
	_, err := s.c.Write(s.first)
	s.first = nil
	return err
}

// A source reads a control connection. Once there is a session, it gives the peer
// DeadAfter for every piece it sends. The time that we wait for the receiver of
// events does not count, and says nothing about the peer.
type source struct {
	c *tls.Conn
	s *session
}

func (r *source) Read(p []byte) (int, error) {
	if r.s == nil {
		return r.c.Read(p)
	}
	dead := r.s.hub.cfg.DeadAfter
	if err := r.c.SetReadDeadline(time.Now().Add(dead)); err != nil {
		return 0, err
	}
	if r.s.ctx.Err() != nil { // the deadline that wakes us was set before ours
		return 0, context.Cause(r.s.ctx)
	}
	n, err := r.c.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w for %s", ErrDead, dead)
	}
	return n, err
}

// read tells the peer's frames until the session ends.
func (s *session) read() error {
	for {
		f, err := readFrame(s.br, maxFrame)
		if err != nil {
			if err == io.EOF {
				return errors.New("peer hung up")
			}
			return fmt.Errorf("read from peer: %w", err)
		}
		switch {
		case f.typ == typePing:
		case f.typ == typeBye:
			return fmt.Errorf("peer ended the session: %q", f.payload[:min(len(f.payload), MaxReason)])
		case f.typ >= firstOwnType || len(f.payload) > MaxPayload:
			return fmt.Errorf("%w: %d bytes of type %#02x", ErrFrame, len(f.payload), f.typ)
		default:
			if s.ctx.Err() != nil {
				return context.Cause(s.ctx)
			}
			select {
			case s.hub.events <- Frame{s.peer.ID, f.typ, f.payload}:
			case <-s.ctx.Done():
				return context.Cause(s.ctx)
			}
		}
	}
}

// write sends what is queued, and pings, until the session ends.
func (s *session) write() error {
	bw := bufio.NewWriterSize(putter{s}, 64<<10)
	ping := time.NewTicker(max(s.hub.cfg.DeadAfter/4, time.Millisecond))
	defer ping.Stop()
	generation := s.hub.cfg.Identity.Generation()
	for {
		for _, f := range s.queue.take() {
			if err := writeFrame(bw, f); err != nil {
				return fmt.Errorf("write to peer: %w", err)
			}
			s.queue.wrote(f)
		}
		if err := bw.Flush(); err != nil {
			return fmt.Errorf("write to peer: %w", err)
		}
		select {
		case <-s.queue.wake:
			continue
		case <-ping.C:
		case <-s.ctx.Done():
			return s.bye(bw)
		}
		if err := s.recheck(&generation); err != nil {
			s.end(err)
			return s.bye(bw)
		}
		if err := writeFrame(bw, frame{typ: typePing}); err != nil {
			return fmt.Errorf("write to peer: %w", err)
		}
	}
}

// A putter writes to the peer, however slow it takes it as long as it takes some.
type putter struct{ *session }

func (s putter) Write(p []byte) (int, error) {
	if err := s.c.SetWriteDeadline(time.Now().Add(stallTimes * s.hub.cfg.DeadAfter)); err != nil {
		return 0, err
	}
	if s.ctx.Err() != nil { // the deadline for the last word was set before ours
		if err := s.c.SetWriteDeadline(time.Now().Add(byeTime)); err != nil {
			return 0, err
		}
	}
	return s.c.Write(p)
}

func (s *session) bye(bw *bufio.Writer) error {
	why := context.Cause(s.ctx)
	if err := writeFrame(bw, frame{typeBye, []byte(cut(why.Error()))}); err == nil {
		_ = bw.Flush() // the peer finds out anyway
	}
	return why
}

// recheck tells whether the peer is still a member: the operator may have removed
// it, or taken the key out that its certificates come from.
func (s *session) recheck(generation *uint64) error {
	if err := s.hub.cfg.Nodes.Check(s.peer.Name, s.peer.ID); err != nil {
		return err
	}
	now := s.hub.cfg.Identity.Generation()
	if now == *generation {
		return nil
	}
	*generation = now
	s.streams.recheck(s.hub.cfg.Identity)
	return s.hub.cfg.Identity.Verify(s.c.ConnectionState())
}
