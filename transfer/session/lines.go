package session

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

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
