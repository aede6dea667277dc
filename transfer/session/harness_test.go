package session

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/transfer/trust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// A host is one node under test: a Hub and all that it told.
type host struct {
	*Hub
	t      testing.TB
	name   string
	id     *trust.Identity
	nodes  *trust.Nodes
	cancel context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	told    []Event
	up      map[signature.NodeID]Peer
	fault   error         // a rule of the events was broken
	changed chan struct{} // closed and replaced with every event
	gate    chan struct{} // what is in it lets one event through; nil: all

	serve func(Incoming) // called in a goroutine of its own
	wg    sync.WaitGroup
}

type option func(*Config)

func clusterKey(t testing.TB) trust.Keys {
	t.Helper()
	k, err := trust.GenerateClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := trust.NewKeys(k)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func nodeIdentity(t testing.TB, name string, keys trust.Keys) *trust.Identity {
	t.Helper()
	key, err := trust.GenerateNodeKey()
	if err != nil {
		t.Fatal(err)
	}
	id, err := trust.NewIdentity("test", name, key, keys)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func newHost(t testing.TB, id *trust.Identity, opts ...option) *host {
	t.Helper()
	nodes, err := trust.OpenNodes(filepath.Join(t.TempDir(), "nodes"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Identity: id, Nodes: nodes, Listen: "127.0.0.1:0",
		BackoffMin: 10 * time.Millisecond, BackoffMax: 100 * time.Millisecond,
		PerSecond:  100000, // all come from one address here
		PerAddress: 1000,
		Hello:      func() []byte { return []byte("hello from " + id.Name()) },
	}
	for _, o := range opts {
		o(&cfg)
	}
	hub, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h := &host{
		Hub: hub, t: t, name: id.Name(), id: id, nodes: nodes, cancel: cancel, ended: make(chan struct{}),
		up: map[signature.NodeID]Peer{}, changed: make(chan struct{}),
	}
	t.Cleanup(h.stop)
	events := make(chan Event, 16)
	go func() {
		if err := hub.Run(ctx, events); err != nil {
			h.breach(fmt.Errorf("run: %w", err))
		}
	}()
	go func() {
		defer close(h.ended)
		for ev := range events {
			h.note(ev)
		}
		h.wg.Wait()
	}()
	return h
}

func (h *host) breach(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = errors.Join(h.fault, err)
}

// note holds every event against the rules and keeps it.
func (h *host) note(ev Event) {
	h.mu.Lock()
	gate := h.gate
	h.mu.Unlock()
	if gate != nil {
		<-gate
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	bad := func(format string, args ...any) {
		h.fault = errors.Join(h.fault, fmt.Errorf(format, args...))
	}
	switch ev := ev.(type) {
	case Up:
		if _, ok := h.up[ev.Peer.ID]; ok {
			bad("%s: up twice without down: %s", h.name, ev.Peer.Name)
		}
		if ev.Peer.ID == h.id.ID() {
			bad("%s has a session with itself", h.name)
		}
		h.up[ev.Peer.ID] = ev.Peer
	case Down:
		if _, ok := h.up[ev.ID]; !ok {
			bad("%s: down without up: %s", h.name, ev.ID)
		}
		delete(h.up, ev.ID)
	case Frame:
		if _, ok := h.up[ev.From]; !ok {
			bad("%s: frame outside a session", h.name)
		}
	case Incoming:
		if _, ok := h.up[ev.From]; !ok {
			bad("%s: stream outside a session", h.name)
		}
		if h.serve != nil {
			h.wg.Go(func() { h.serve(ev) })
		}
	}
	h.told = append(h.told, ev)
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *host) stop() {
	h.cancel()
	h.mu.Lock()
	gate := h.gate
	h.gate = nil
	h.mu.Unlock()
	if gate != nil {
		close(gate)
	}
	select {
	case <-h.ended:
	case <-time.After(patience):
		panic("the hub does not end")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fault != nil {
		h.t.Error(h.fault)
		h.fault = nil
	}
}

// wait waits until ok says yes of what was told so far.
func (h *host) wait(what string, ok func() bool) {
	h.t.Helper()
	deadline := time.After(patience)
	for {
		h.mu.Lock()
		yes, changed := ok(), h.changed
		h.mu.Unlock()
		if yes {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			h.mu.Lock()
			defer h.mu.Unlock()
			h.t.Fatalf("%s waited in vain for: %s; told: %d events, the last %+v", h.name, what, len(h.told), h.told[max(0, len(h.told)-5):])
		}
	}
}

func (h *host) waitUp(peers ...*host) {
	h.t.Helper()
	for _, p := range peers {
		h.wait(p.name+" up", func() bool { _, ok := h.up[p.id.ID()]; return ok })
	}
}

func (h *host) peer(p *host) Peer {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.up[p.id.ID()]
}

// find returns the first event of its kind that ok says yes of, and waits for it.
func find[E Event](h *host, what string, ok func(E) bool) E {
	h.t.Helper()
	var found E
	h.wait(what, func() bool {
		for _, ev := range h.told {
			if e, is := ev.(E); is && ok(e) {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

func count[E Event](h *host) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ev := range h.told {
		if _, is := ev.(E); is {
			n++
		}
	}
	return n
}

// until polls what no event tells of.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// pair returns two nodes with a session.
func pair(t testing.TB, opts ...option) (a, b *host) {
	t.Helper()
	keys := clusterKey(t)
	a, b = newHost(t, nodeIdentity(t, "alpha", keys), opts...), newHost(t, nodeIdentity(t, "beta", keys), opts...)
	a.Meet(b.id.ID(), b.Addr().String())
	a.waitUp(b)
	b.waitUp(a)
	return a, b
}
