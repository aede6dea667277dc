package node

import (
	"context"
	"sync"
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
