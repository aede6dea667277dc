package session

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/transfer/trust"
)

var errTooManyStreams = errors.New("too many streams")

// streams are the data connections of one session, of both directions.
type streams struct {
	idleMost int
	inMost   int           // twice MaxStreams: the peer may see one end before we do
	out      chan struct{} // a token per stream that we opened

	mu    sync.Mutex
	why   error // set: the session ended
	conns map[*line]struct{}
	idle  []*line // dialled by us and free, the latest last
	in    int     // connections that the peer dialled
	wg    sync.WaitGroup
}

func (t *streams) init(cfg Config) {
	t.idleMost, t.inMost = cfg.IdleStreams, 2*cfg.MaxStreams
	t.out = make(chan struct{}, cfg.MaxStreams)
	t.conns = map[*line]struct{}{}
}

// A line is one data connection. It carries one stream after another.
type line struct {
	c       *tls.Conn
	wire    *conn
	r       *bufio.Reader
	of      *streams
	dialled bool
	since   time.Time // idle since

	once sync.Once
	dead chan struct{}
	why  error // set before dead is closed
}

func newLine(c *tls.Conn, wire *conn, of *streams, dialled bool) *line {
	return &line{c: c, wire: wire, r: bufio.NewReaderSize(c, 16<<10), of: of, dialled: dialled, dead: make(chan struct{})}
}

// fail ends the line; the first reason counts.
func (l *line) fail(why error) {
	l.once.Do(func() {
		l.why = why
		close(l.dead)
		if l.c != nil {
			hangUp(l.c)
		}
		l.of.remove(l)
	})
}

// cause returns why the line failed, rather than what reading or writing says of it.
func (l *line) cause(err error) error {
	select {
	case <-l.dead:
		return l.why
	default:
		return err
	}
}

func (t *streams) add(l *line) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.why != nil {
		return t.why
	}
	if !l.dialled {
		if t.in >= t.inMost {
			return errTooManyStreams
		}
		t.in++
		t.wg.Add(1)
	}
	t.conns[l] = struct{}{}
	return nil
}

func (t *streams) remove(l *line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.conns[l]; !ok {
		return
	}
	delete(t.conns, l)
	if !l.dialled {
		t.in--
	}
	t.idle = slices.DeleteFunc(t.idle, func(o *line) bool { return o == l })
}

// take returns a free line, the one used last, or nil.
func (t *streams) take() *line {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.idle)
	if n == 0 {
		return nil
	}
	l := t.idle[n-1]
	t.idle = t.idle[:n-1]
	return l
}

// free keeps a line for the next stream, or closes it.
func (t *streams) free(l *line) {
	t.mu.Lock()
	keep := t.why == nil && len(t.idle) < t.idleMost
	if keep {
		l.since = time.Now()
		t.idle = append(t.idle, l)
	}
	t.mu.Unlock()
	if !keep {
		l.fail(io.EOF)
	}
}

// pick returns the lines that ok says yes to.
func (t *streams) pick(ok func(*line) bool) (out []*line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.conns {
		if ok(l) {
			out = append(out, l)
		}
	}
	return out
}

// expire closes the lines that were free for so long. They are taken off the list
// first, or one could carry a stream by then.
func (t *streams) expire(now time.Time, after time.Duration) {
	t.mu.Lock()
	var old []*line
	t.idle = slices.DeleteFunc(t.idle, func(l *line) bool {
		if now.Sub(l.since) < after {
			return false
		}
		old = append(old, l)
		return true
	})
	t.mu.Unlock()
	for _, l := range old {
		l.fail(io.EOF)
	}
}

// end ends all streams and waits until no more is told of them.
func (t *streams) end(why error) {
	t.mu.Lock()
	t.why = why
	t.mu.Unlock()
	for _, l := range t.pick(func(*line) bool { return true }) {
		l.fail(why)
	}
	t.wg.Wait()
}

// recheck ends the streams whose peers came with a key that is no longer accepted.
func (t *streams) recheck(id *trust.Identity) {
	for _, l := range t.pick(func(l *line) bool { return id.Verify(l.c.ConnectionState()) != nil }) {
		l.fail(trust.ErrStranger)
	}
}

// sweep closes lines that were free for too long.
func (h *Hub) sweep(now time.Time) {
	h.mu.Lock()
	var all []*session
	for _, s := range h.live {
		all = append(all, s)
	}
	h.mu.Unlock()
	for _, s := range all {
		s.streams.expire(now, h.cfg.IdleFor)
	}
}

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
