package monitor

import "sync"

// inbox collects the names that came or went, for the goroutine that sets watches.
// It takes in events without ever waiting, since fsnotify stops reading the kernel's
// queue while one is not taken. When it is full, all folders are looked at.
type inbox struct {
	wake  chan struct{} // filled when there is something to take
	limit int

	mu       sync.Mutex
	names    map[string]struct{}
	all      bool
	overflow bool
}

func newInbox(limit int) *inbox {
	return &inbox{wake: make(chan struct{}, 1), limit: limit, names: make(map[string]struct{})}
}

func (b *inbox) add(rel string) {
	b.mu.Lock()
	if !b.all {
		b.names[rel] = struct{}{}
	}
	if len(b.names) > b.limit {
		b.all = true
		clear(b.names)
	}
	b.mu.Unlock()
	b.signal()
}

// addAll asks for a look at all folders; overflow says that events were lost.
func (b *inbox) addAll(overflow bool) {
	b.mu.Lock()
	b.all, b.overflow = true, b.overflow || overflow
	clear(b.names)
	b.mu.Unlock()
	b.signal()
}

func (b *inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take returns what waits and forgets it. With all, names is empty.
func (b *inbox) take() (names map[string]struct{}, all, overflow bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	names, all, overflow = b.names, b.all, b.overflow
	b.names, b.all, b.overflow = make(map[string]struct{}), false, false
	return names, all, overflow
}
