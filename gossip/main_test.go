package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"

	"github.com/clsync/clsync/signature"
)

func TestMain(m *testing.M) {
	if arg := os.Getenv(roleEnv); arg != "" {
		os.Exit(playRole(arg))
	}
	goleak.VerifyTestMain(m)
}

func key(b byte) []byte { return bytes.Repeat([]byte{b}, KeySize) }

func nodeID(b byte) (id signature.NodeID) {
	for i := range id {
		id[i] = b
	}
	return id
}

func config(b byte) Config {
	return Config{
		ID:          nodeID(b),
		Name:        fmt.Sprintf("node-%d", b),
		Cluster:     "test",
		SessionPort: 7000 + int(b),
		Listen:      fmt.Sprintf("127.0.0.%d:0", b+1),
		Keys:        [][]byte{key(1)},
		BeaconKeys:  [][]byte{key(2)},
		Multicast:   MulticastConfig{Off: true},
		Timing:      Fast,
		Version:     "v-test",
		Logger:      slog.New(slog.DiscardHandler),
	}
}

// A running node collects its events.
type running struct {
	*Cluster
	t    *testing.T
	line *cable // of its transport
	stop func() error

	mu     sync.Mutex
	events []Event
}

// A cable can be cut: then nothing goes in or out, as if a cable had been pulled.
type cable struct {
	link
	cut     atomic.Bool
	packets chan *memberlist.Packet
	streams chan net.Conn
	done    chan struct{}
	wg      sync.WaitGroup
}

var errCut = errors.New("the wire is cut")

func newCable(l link) *cable {
	w := &cable{link: l, packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), done: make(chan struct{})}
	w.wg.Go(func() {
		for {
			select {
			case p := <-l.PacketCh():
				if w.cut.Load() {
					continue
				}
				select {
				case w.packets <- p:
				case <-w.done:
					return
				}
			case s := <-l.StreamCh():
				if w.cut.Load() {
					s.Close()
					continue
				}
				select {
				case w.streams <- s:
				case <-w.done:
					s.Close()
					return
				}
			case <-w.done:
				return
			}
		}
	})
	return w
}

func (w *cable) PacketCh() <-chan *memberlist.Packet { return w.packets }
func (w *cable) StreamCh() <-chan net.Conn           { return w.streams }

func (w *cable) WriteTo(b []byte, addr string) (time.Time, error) {
	if w.cut.Load() {
		return time.Now(), nil
	}
	return w.link.WriteTo(b, addr)
}

func (w *cable) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return w.WriteTo(b, a.Addr)
}

func (w *cable) DialTimeout(addr string, d time.Duration) (net.Conn, error) {
	if w.cut.Load() {
		return nil, errCut
	}
	return w.link.DialTimeout(addr, d)
}

func (w *cable) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	return w.DialTimeout(a.Addr, d)
}

func (w *cable) Shutdown() error {
	close(w.done)
	err := w.link.Shutdown()
	w.wg.Wait()
	return err
}

func start(t *testing.T, cfg Config) *running {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Cluster: c, t: t}
	open := c.listen
	c.listen = func() (link, error) {
		l, err := open()
		if err != nil {
			return nil, err
		}
		r.line = newCable(l)
		return r.line, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	events := make(chan Event)
	done := make(chan error, 1)
	go func() {
		done <- c.Run(ctx, events)
		close(events)
	}()
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		for ev := range events {
			r.mu.Lock()
			r.events = append(r.events, ev)
			r.mu.Unlock()
		}
	}()
	r.stop = sync.OnceValue(func() error {
		cancel()
		err := <-done
		<-collected
		return err
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("run %s: %v", cfg.Name, err)
		}
	})
	r.until("it listens", func() bool { return c.Addr().IsValid() })
	return r
}

// until waits for a predicate.
func (r *running) until(what string, ok func() bool) {
	r.t.Helper()
	waitFor(r.t, r.cfg.Name+": "+what, 15*time.Second, ok)
}

func waitFor(t *testing.T, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long until %s", what)
		}
		time.Sleep(2 * time.Millisecond) // between two looks at the predicate
	}
}

func (r *running) seen(match func(Event) bool) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, ev := range r.events {
		if match(ev) {
			n++
		}
	}
	return n
}

func (r *running) saw(match func(Event) bool) func() bool {
	return func() bool { return r.seen(match) > 0 }
}

func (r *running) headIs(from signature.NodeID, tree, digest string) func() bool {
	return func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		last := ""
		for _, ev := range r.events {
			if h, ok := ev.(Head); ok && h.From == from && h.Tree == tree {
				last = string(h.Digest)
			}
		}
		return last == digest
	}
}

func (r *running) members(n int) func() bool {
	return func() bool { return len(r.Members()) == n }
}

func seeds(rs ...*running) []string {
	var s []string
	for _, r := range rs {
		s = append(s, r.Addr().String())
	}
	return s
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
