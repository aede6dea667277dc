package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/clsync/clsync/signature"
)

// OpenStream opens a stream to a peer that has a session and waits until it is
// accepted. ctx bounds the stream's whole life. A *Rejected error says what the
// peer says. Where MaxStreams are open, it waits for one to end.
func (h *Hub) OpenStream(ctx context.Context, to signature.NodeID, header []byte) (*Stream, error) {
	st, err := h.openStream(ctx, to, header)
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return st, nil
}

func (h *Hub) openStream(ctx context.Context, to signature.NodeID, header []byte) (*Stream, error) {
	s := h.session(to)
	if s == nil {
		return nil, ErrGone
	}
	if len(header) > MaxHeader {
		return nil, fmt.Errorf("%w: header of %d bytes", ErrFrame, len(header))
	}
	for {
		st, fresh, err := h.tryStream(ctx, s, header)
		if err == nil {
			h.counts.streams.Add(1)
			if !fresh {
				h.counts.reused.Add(1)
			}
			return st, nil
		}
		// A free line may have been closed by the peer just now: then the next one, at
		// last a fresh one. Nothing of the stream has begun before it was accepted.
		var no *Rejected
		if fresh || errors.As(err, &no) || ctx.Err() != nil || s.ctx.Err() != nil {
			return nil, err
		}
	}
}

// tryStream opens a stream on a free line or a fresh one.
func (h *Hub) tryStream(ctx context.Context, s *session, header []byte) (st *Stream, fresh bool, err error) {
	t := &s.streams
	select {
	case t.out <- struct{}{}:
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	case <-s.ctx.Done():
		return nil, false, fmt.Errorf("%w: %w", ErrGone, context.Cause(s.ctx))
	}
	l := t.take()
	if fresh = l == nil; fresh {
		if l, err = h.dialLine(ctx, s); err != nil {
			<-t.out
			return nil, fresh, err
		}
	}
	st = newStream(h, l, s.peer.ID, header, func() { <-t.out })
	return st, fresh, st.open(ctx, header)
}

// dialLine dials the peer for streams.
func (h *Hub) dialLine(ctx context.Context, s *session) (*line, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(s.ctx, func() { cancel(fmt.Errorf("%w: %w", ErrGone, context.Cause(s.ctx))) })
	defer stop()
	c, wire, _, err := h.connect(ctx, s.peer.Addr, s.peer.ID)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	_, err = c.Write([]byte{prefaceStream})
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		hangUp(c)
		return nil, err
	}
	wire.gathering()
	l := newLine(c, wire, &s.streams, true)
	if err := s.streams.add(l); err != nil {
		hangUp(c)
		return nil, err
	}
	return l, nil
}
