package rsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// A Conn is the sender's end of one batch's stream. Start comes first, Exit last;
// Read and Write are called from one goroutine each, side by side.
type Conn interface {
	// Start tells the peer which arguments our rsync composed and waits for it to
	// accept them. The error is its refusal.
	Start(argv []string) error
	// Read returns io.EOF only when the peer ended its stream in order.
	io.Reader
	io.Writer
	// CloseWrite ends our stream in order. It says that our rsync has read the
	// final goodbye, and is not called if it ended otherwise.
	CloseWrite() error
	// Exit waits for the receiver's exit code and last words. It is called after
	// Read returned io.EOF.
	Exit() (code int, stderr string, err error)
	// Close gives the stream up: every pending call returns, and the peer's Read
	// does not return io.EOF unless CloseWrite came first. It may be called at any
	// time, from any goroutine, and again.
	Close() error
}

// A ServerConn is the receiver's end of one batch's stream.
type ServerConn interface {
	// Read returns io.EOF only after the peer's CloseWrite; a stream that broke
	// is another error.
	io.Reader
	io.Writer
	// Exit ends our stream in order and tells the exit code and last words.
	Exit(code int, stderr string) error
	// Close is as in Conn. What was sent before it, Exit included, still reaches
	// the peer.
	Close() error
}

// DefaultTimeout is longer than rsync's own, so that rsync can say why it left.
const DefaultTimeout = 90 * time.Second

// errIdle is the cause of a batch that stood still.
var errIdle = fmt.Errorf("%w: nothing moved", ErrBatch)

// A watchdog ends a batch in which no byte has moved for its timeout. A peer can
// keep a stream alive with noise: the bound on the whole is the caller's context.
type watchdog struct {
	last    atomic.Int64
	timeout time.Duration
}

func newWatchdog(timeout time.Duration) *watchdog {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	w := &watchdog{timeout: timeout}
	w.moved()
	return w
}

func (w *watchdog) moved() { w.last.Store(time.Now().UnixNano()) }

// run returns when ctx ends, or calls bite and returns.
func (w *watchdog) run(ctx context.Context, bite func(error)) {
	for {
		left := w.timeout - time.Since(time.Unix(0, w.last.Load()))
		if left <= 0 {
			bite(fmt.Errorf("%w for %s", errIdle, w.timeout))
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(left):
		}
	}
}

// pumped is what became of one direction. At most one of the errors is set; both
// nil is an orderly end.
type pumped struct {
	n           int64
	read, write error
}

// pump copies until src ends or dst does not take any more.
func (w *watchdog) pump(dst io.Writer, src io.Reader) (p pumped) {
	buf := make([]byte, 128<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			w.moved()
			m, err := dst.Write(buf[:n])
			p.n += int64(m)
			w.moved()
			if err != nil {
				p.write = err
				return p
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				p.read = err
			}
			return p
		}
	}
}

// drain reads to the end what nobody wants any more, so that the end is seen.
func (w *watchdog) drain(src io.Reader) error {
	return w.pump(io.Discard, src).read
}
