package node

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/transfer/message"
	"github.com/clsync/clsync/transfer/session"
)

// A pushConn carries the sending rsync's stream. The stream is opened once rsync
// has said what it would run at the other end.
type pushConn struct {
	ctx  context.Context // of the push; rsync's Conn has none of its own
	hub  *session.Hub
	to   signature.NodeID
	push message.Push

	mu     sync.Mutex
	s      *session.Stream
	closed bool
}

var errClosed = errors.New("push was given up")

func (c *pushConn) Start(argv []string) error {
	c.push.Argv = argv
	s, err := c.hub.OpenStream(c.ctx, c.to, c.push.Encode())
	if err != nil {
		return fmt.Errorf("open stream: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		s.Abort(errClosed)
		return errClosed
	}
	c.s = s
	return nil
}

func (c *pushConn) stream() *session.Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.s
}

func (c *pushConn) Read(p []byte) (int, error)  { return c.stream().Read(p) }
func (c *pushConn) Write(p []byte) (int, error) { return c.stream().Write(p) }
func (c *pushConn) CloseWrite() error           { return c.stream().CloseWrite() }

func (c *pushConn) Exit() (int, string, error) {
	s := c.stream()
	code, reason, err := s.Exit()
	if text := string(s.Stderr()); text != "" {
		reason = text
	}
	return code, reason, err
}

func (c *pushConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	if c.s == nil {
		return nil
	}
	return c.s.Close()
}

// A serverConn carries the receiving rsync's stream.
type serverConn struct{ s *session.Stream }

func (c serverConn) Read(p []byte) (int, error)  { return c.s.Read(p) }
func (c serverConn) Write(p []byte) (int, error) { return c.s.Write(p) }
func (c serverConn) Close() error                { return c.s.Close() }

func (c serverConn) Exit(code int, stderr string) error {
	return errors.Join(c.s.CloseWrite(), c.s.Fail(code, stderr))
}
