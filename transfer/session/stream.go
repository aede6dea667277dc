package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/clsync/clsync/signature"
)

var (
	// ErrAborted is what Read returns where the peer closed its stream without
	// CloseWrite: what was read is not all.
	ErrAborted = errors.New("peer broke off")
	// ErrNoExit is returned by Exit where the peer sent no exit status.
	ErrNoExit = errors.New("no exit status")
	// ErrClosed is returned after Close or Abort, and after CloseWrite for writes.
	ErrClosed = errors.New("stream is closed")
	// errState is returned where a stream is used before it was accepted.
	errState = errors.New("stream is not accepted")
)

// Rejected is why OpenStream did not get a stream, in the peer's words.
type Rejected struct{ Reason string }

func (r *Rejected) Error() string { return fmt.Sprintf("peer rejects it: %q", r.Reason) }

// maxStderr is how much of the peer's stderr is kept: the end of it.
const maxStderr = 64 << 10

// A Stream carries bytes both ways, and text, an exit status and its reason
// beside them. One goroutine may read while another writes; Close is called when
// both are through, Abort at any time. Every stream must be closed, aborted or
// rejected.
type Stream struct {
	hub     *Hub
	l       *line
	peer    signature.NodeID
	header  []byte
	release func()
	over    chan struct{} // closed when the line is free or dead
	clean   bool          // set before over is closed

	dmu    sync.Mutex
	detach func() bool // from ctx

	rmu     sync.Mutex
	rest    int // of the data chunk being read
	eof     bool
	fin     bool
	rerr    error
	exited  *exit
	stderr  []byte
	hearing bool // accepted, as far as reading goes

	wmu      sync.Mutex
	buf      []byte
	accepted bool
	wEOF     bool
	closed   bool
	werr     error

	ending sync.Once
}

func newStream(h *Hub, l *line, peer signature.NodeID, header []byte, release func()) *Stream {
	return &Stream{
		hub: h, l: l, peer: peer, header: header, release: release,
		over: make(chan struct{}), detach: func() bool { return true },
	}
}

// Peer returns who is at the other end.
func (s *Stream) Peer() signature.NodeID { return s.peer }

// Header returns what the stream was opened with.
func (s *Stream) Header() []byte { return s.header }

// SetDeadline bounds reading and writing. A stream that ran into it is broken.
func (s *Stream) SetDeadline(t time.Time) error {
	select {
	case <-s.over:
		return ErrClosed // the line may carry another stream by now
	default:
		return s.l.c.SetDeadline(t)
	}
}

// attach makes ctx end the stream.
func (s *Stream) attach(ctx context.Context) {
	s.dmu.Lock()
	defer s.dmu.Unlock()
	s.detach = context.AfterFunc(ctx, func() { s.Abort(context.Cause(ctx)) })
}

// loose takes the stream off its ctx; false: that has ended it, or it was off.
func (s *Stream) loose() bool {
	s.dmu.Lock()
	defer s.dmu.Unlock()
	return s.detach()
}

// open asks the peer and waits for its answer. On an error the stream is over.
func (s *Stream) open(ctx context.Context, header []byte) error {
	s.attach(ctx)
	if err := s.ask(header); err != nil {
		var no *Rejected
		if errors.As(err, &no) && s.loose() {
			s.finish()
		} else {
			s.Abort(err)
			err = s.l.cause(err)
		}
		return err
	}
	s.wmu.Lock()
	s.accepted = true
	s.wmu.Unlock()
	s.rmu.Lock()
	s.hearing = true
	s.rmu.Unlock()
	return nil
}

func (s *Stream) ask(header []byte) error {
	s.wmu.Lock()
	err := s.send(kindOpen, header)
	s.wmu.Unlock()
	if err != nil {
		return err
	}
	kind, n, err := readHead(s.l.r)
	if err != nil {
		return err
	}
	switch kind {
	case kindAccept:
		return nil
	case kindReject:
		b := make([]byte, n)
		if _, err := io.ReadFull(s.l.r, b); err != nil {
			return err
		}
		return &Rejected{printable(b)}
	}
	return fmt.Errorf("%w: chunk of kind %d instead of an answer", ErrFrame, kind)
}

// Accept lets an incoming stream begin. ctx bounds its whole life.
func (s *Stream) Accept(ctx context.Context) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.accepted || s.closed {
		return fmt.Errorf("accept stream: %w", ErrClosed)
	}
	if err := s.send(kindAccept, nil); err != nil {
		return fmt.Errorf("accept stream: %w", err)
	}
	s.accepted = true
	s.rmu.Lock()
	s.hearing = true
	s.rmu.Unlock()
	s.attach(ctx)
	return nil
}

// Reject turns an incoming stream down; it is over then.
func (s *Stream) Reject(reason string) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.accepted || s.closed {
		return fmt.Errorf("reject stream: %w", ErrClosed)
	}
	s.closed = true
	if err := s.send(kindReject, []byte(cut(reason))); err != nil {
		s.Abort(err)
		return fmt.Errorf("reject stream: %w", err)
	}
	s.finish()
	return nil
}

// finish gives the line back for another stream.
func (s *Stream) finish() {
	s.ending.Do(func() {
		s.clean = true
		s.release()
		close(s.over)
		if s.l.dialled {
			s.l.of.free(s.l)
		}
	})
	s.loose()
}

// Abort ends the stream at once, and the connection with it. Reads and writes
// return why; the peer finds a broken connection, never an end of data.
func (s *Stream) Abort(why error) {
	if why == nil {
		why = ErrClosed
	}
	s.ending.Do(func() { // a stream that is over has no say about its line
		s.l.fail(why)
		s.release()
		close(s.over)
	})
	s.loose()
}

// Close says that nothing more comes. It hardly waits: what the peer still sends
// is read away for a while, and where both sides ended in order the connection is
// used again. Without CloseWrite before it the peer's Read ends in ErrAborted.
func (s *Stream) Close() error {
	if !s.wmu.TryLock() { // somebody is writing: this cannot end in order
		s.Abort(ErrClosed)
		return nil
	}
	defer s.wmu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if !s.accepted {
		s.Abort(ErrClosed)
		return nil
	}
	if s.werr != nil {
		s.Abort(s.werr)
		return nil
	}
	if !s.rmu.TryLock() {
		s.Abort(ErrClosed)
		return nil
	}
	broken := s.rerr != nil
	s.rmu.Unlock()
	if !s.loose() || broken {
		s.Abort(ErrClosed)
		return nil
	}
	err := s.l.c.SetDeadline(time.Now().Add(s.hub.cfg.HandshakeTimeout))
	if err == nil {
		err = s.send(kindFin, nil)
	}
	if err != nil {
		s.Abort(err)
		return fmt.Errorf("close stream: %w", err)
	}
	if !s.hub.spawn(s.linger) {
		s.Abort(errStopped)
	}
	return nil
}

// linger reads what the peer still sends until its last chunk.
func (s *Stream) linger() {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	for !s.fin && s.rerr == nil {
		s.skip()
	}
	clean := s.fin && s.eof && s.wEOF
	if clean && s.l.c.SetDeadline(time.Time{}) != nil {
		clean = false
	}
	if !clean {
		s.Abort(ErrClosed)
		return
	}
	s.finish()
}
