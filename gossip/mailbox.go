package gossip

import (
	"context"
	"sync"

	"github.com/clsync/clsync/signature"
)

// maxHints is how many undelivered hints are kept for a slow reader.
const maxHints = 1024

// A hintKey names what a hint is about. A newer hint about the same replaces the
// older one in its place.
type hintKey struct {
	kind  byte
	id    signature.NodeID
	about string
}

// A mailbox holds events until the reader takes them. Of each member it keeps the
// last word, and of each hint the newest; so nothing here grows with the time for
// which the reader sleeps.
type mailbox struct {
	mu      sync.Mutex
	members map[signature.NodeID]Event
	order   []signature.NodeID
	told    map[signature.NodeID]bool // of whom the reader believes they are alive
	hints   map[hintKey]Event
	line    []hintKey
	wake    chan struct{} // holds one token while there may be something to take
}

func newMailbox() *mailbox {
	return &mailbox{
		members: map[signature.NodeID]Event{},
		told:    map[signature.NodeID]bool{},
		hints:   map[hintKey]Event{},
		wake:    make(chan struct{}, 1),
	}
}

func (m *mailbox) rouse() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// member puts an Alive or a Gone. Members are limited in number, and a Gone of one
// the reader never heard of cancels the Alive it has not seen, so this is bounded
// by twice that number.
func (m *mailbox) member(id signature.NodeID, ev Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, pending := m.members[id]
	if _, gone := ev.(Gone); gone && !m.told[id] {
		if pending {
			delete(m.members, id)
			for i, o := range m.order {
				if o == id {
					m.order = append(m.order[:i], m.order[i+1:]...)
					break
				}
			}
		}
		return
	}
	m.members[id] = ev
	if !pending {
		m.order = append(m.order, id)
	}
	m.rouse()
}

// hint puts any other event and tells whether there was room.
func (m *mailbox) hint(k hintKey, ev Event) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, pending := m.hints[k]; !pending {
		if len(m.line) >= maxHints {
			return false
		}
		m.line = append(m.line, k)
	}
	m.hints[k] = ev
	m.rouse()
	return true
}

// take returns the next event, members first.
func (m *mailbox) take() (Event, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.order) > 0 {
		id := m.order[0]
		m.order = m.order[1:]
		ev := m.members[id]
		delete(m.members, id)
		if _, alive := ev.(Alive); alive {
			m.told[id] = true
		} else {
			delete(m.told, id)
		}
		return ev, true
	}
	if len(m.line) > 0 {
		k := m.line[0]
		m.line = m.line[1:]
		ev := m.hints[k]
		delete(m.hints, k)
		return ev, true
	}
	return nil, false
}

// run hands events to the reader until ctx ends.
func (m *mailbox) run(ctx context.Context, events chan<- Event) error {
	for {
		ev, ok := m.take()
		if !ok {
			select {
			case <-m.wake:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		select {
		case events <- ev:
		case <-ctx.Done():
			return nil
		}
	}
}
