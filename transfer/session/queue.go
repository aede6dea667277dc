package session

import "sync"

// A queue holds what is to be sent to one peer. It is bounded in frames and
// bytes; full, it takes nothing more.
type queue struct {
	maxFrames, maxBytes int
	wake                chan struct{} // capacity 1: a token says that something may be queued

	mu      sync.Mutex
	waiting []frame
	frames  int // waiting, and taken but not written
	bytes   int
	closed  bool
}

func newQueue(frames, bytes int) *queue {
	return &queue{maxFrames: frames, maxBytes: bytes, wake: make(chan struct{}, 1)}
}

func (q *queue) put(f frame) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return ErrGone
	case q.frames >= q.maxFrames, q.frames > 0 && q.bytes+f.size() > q.maxBytes:
		return ErrFull
	}
	q.waiting = append(q.waiting, f)
	q.frames++
	q.bytes += f.size()
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}

// take returns all that waits. It still counts until wrote is called for it.
func (q *queue) take() []frame {
	q.mu.Lock()
	defer q.mu.Unlock()
	fs := q.waiting
	q.waiting = nil
	return fs
}

func (q *queue) wrote(f frame) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.frames--
	q.bytes -= f.size()
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.waiting = true, nil
}
