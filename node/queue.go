package node

import (
	"context"
	"sync"
	"time"

	"github.com/clsync/clsync/signature"
)

// A queue hands work from the tree's goroutine to a worker and never makes it
// wait: two that wait for each other's full channel would stand still for ever.
// What bounds it is the core, which asks for a thing once and waits for the answer.
type queue[T any] struct {
	mu    sync.Mutex
	items []T
	some  chan struct{} // holds a token while there may be items
}

func newQueue[T any]() *queue[T] { return &queue[T]{some: make(chan struct{}, 1)} }

func (q *queue[T]) push(v T) {
	q.mu.Lock()
	q.items = append(q.items, v)
	q.mu.Unlock()
	select {
	case q.some <- struct{}{}:
	default:
	}
}

// ready is to be received from before pop.
func (q *queue[T]) ready() <-chan struct{} { return q.some }

// pop takes the oldest item, if there is one.
func (q *queue[T]) pop() (v T, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return v, false
	}
	v, q.items = q.items[0], q.items[1:]
	if len(q.items) > 0 {
		select {
		case q.some <- struct{}{}:
		default:
		}
	}
	return v, true
}

// each runs f on items as they come, until ctx ends.
func (q *queue[T]) each(ctx context.Context, f func(T)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-q.ready():
			if v, ok := q.pop(); ok {
				f(v)
			}
		}
	}
}

// maxFrames bounds the bytes of frames that wait for a tree, and frameWait how long
// the router waits for it to take one.
const (
	maxFrames = 64 << 20
	frameWait = 2 * time.Second
)

// A frameQueue holds what sessions bring for a tree. When it is full, the router
// waits while the tree goes on taking frames, and so does the peer. It does not wait
// for a tree whose disk hangs, since that would hold up the others: what the peer
// sends is dropped then, and the tree begins anew with it once it is back, as on a
// new session. Losing a message never matters.
type frameQueue struct {
	*queue[inbound]
	bytes int           // under queue.mu
	took  chan struct{} // holds a token after a frame was taken
	lost  map[signature.NodeID]bool
}

func newFrameQueue() *frameQueue {
	return &frameQueue{queue: newQueue[inbound](), took: make(chan struct{}, 1), lost: map[signature.NodeID]bool{}}
}

// push is called by one goroutine, the router.
func (q *frameQueue) push(in inbound) {
	q.mu.Lock()
	if in.up || in.down {
		delete(q.lost, in.from)
	}
	for !in.up && !in.down && q.bytes+len(in.payload) > maxFrames {
		if q.lost[in.from] {
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		taken := q.wait()
		q.mu.Lock()
		if !taken {
			q.lost[in.from] = true
			in = inbound{from: in.from, up: true}
		}
	}
	if q.lost[in.from] && !in.up {
		q.mu.Unlock()
		return
	}
	q.bytes += len(in.payload)
	q.mu.Unlock()
	q.queue.push(in)
}

// wait waits until a frame was taken; false: none was.
func (q *frameQueue) wait() bool {
	late := time.NewTimer(frameWait)
	defer late.Stop()
	select {
	case <-q.took:
		return true
	case <-late.C:
		return false
	}
}

func (q *frameQueue) pop() (inbound, bool) {
	in, ok := q.queue.pop()
	q.mu.Lock()
	q.bytes -= len(in.payload)
	if in.up {
		delete(q.lost, in.from)
	}
	q.mu.Unlock()
	select {
	case q.took <- struct{}{}:
	default:
	}
	return in, ok
}
