package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/clsync/clsync/signature"
)

// A lan is a network in memory, for memberlist in virtual time. What is sent to an
// address where nobody is, or from one that is cut off, is lost without a word.
type lan struct {
	mu    sync.Mutex
	hosts map[netip.AddrPort]*host
	off   map[netip.AddrPort]bool
}

type host struct {
	lan     *lan
	addr    netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	mu      sync.Mutex
	open    []net.Conn
	hush    context.Context
	hushed  context.CancelFunc
}

var _ link = (*host)(nil)

func (l *lan) plug(a netip.AddrPort) *host {
	h := &host{lan: l, addr: a, packets: make(chan *memberlist.Packet, 1000), streams: make(chan net.Conn, 10)}
	h.hush, h.hushed = context.WithCancel(context.Background())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hosts[a] = h
	return h
}

func (l *lan) cut(a netip.AddrPort, off bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.off[a] = off
}

func (l *lan) route(from, to netip.AddrPort) *host {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.off[from] || l.off[to] {
		return nil
	}
	return l.hosts[to]
}

func (h *host) advertised() netip.AddrPort { return h.addr }
func (h *host) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return h.addr.Addr().AsSlice(), int(h.addr.Port()), nil
}
func (h *host) PacketCh() <-chan *memberlist.Packet { return h.packets }
func (h *host) StreamCh() <-chan net.Conn           { return h.streams }

func (h *host) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	if to := h.lan.route(h.addr, addrPort(addr)); to != nil {
		select {
		case to.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(h.addr), Timestamp: now}:
		default:
		}
	}
	return now, nil
}

func (h *host) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return h.WriteTo(b, a.Addr)
}

func (h *host) DialTimeout(addr string, d time.Duration) (net.Conn, error) {
	to := h.lan.route(h.addr, addrPort(addr))
	if to == nil {
		select {
		case <-time.After(d):
			return nil, errors.New("timed out")
		case <-h.hush.Done():
			return nil, errHungUp
		}
	}
	ours, theirs := net.Pipe()
	if !h.keep(ours) || !to.keep(theirs) {
		return nil, errHungUp
	}
	select {
	case to.streams <- theirs:
		return ours, nil
	default:
		return nil, errors.New("refused")
	}
}

func (h *host) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	return h.DialTimeout(a.Addr, d)
}

func (h *host) keep(c net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hush.Err() != nil {
		c.Close()
		return false
	}
	h.open = append(h.open, c)
	return true
}

func (h *host) hangUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hushed()
	for _, c := range h.open {
		c.Close()
	}
}

func (h *host) Shutdown() error {
	h.hangUp()
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	delete(h.lan.hosts, h.addr)
	return nil
}

// node starts a node with the timing of a real network.
func (l *lan) node(t *testing.T, b byte, seeds ...string) (c *Cluster, events chan Event, stop func()) {
	t.Helper()
	cfg := config(b)
	cfg.Timing, cfg.Seeds, cfg.Logger = LAN, seeds, slog.New(slog.DiscardHandler)
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.listen = func() (link, error) { return l.plug(hostAddr(b)), nil }
	ctx, cancel := context.WithCancel(context.Background())
	events, done := make(chan Event, 10_000), make(chan error, 1)
	go func() { done <- c.Run(ctx, events) }()
	return c, events, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func (c *Cluster) digestOf(id signature.NodeID, tree string) string {
	for _, h := range c.heads.all() {
		if h.node == id && h.tree == tree {
			return h.digest
		}
	}
	return ""
}

func hostAddr(b byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, b}), 7946)
}

func TestLAN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lan{hosts: map[netip.AddrPort]*host{}, off: map[netip.AddrPort]bool{}}
		var nodes []*Cluster
		var stops []func()
		var last chan Event
		for b := byte(1); b <= 5; b++ {
			c, ev, stop := l.node(t, b, hostAddr(9).String(), hostAddr(1).String())
			nodes, stops, last = append(nodes, c), append(stops, stop), ev
		}
		time.Sleep(10 * time.Second)
		for _, c := range nodes {
			if n := len(c.Members()); n != 4 {
				t.Errorf("%s has %d members after ten seconds", c.cfg.Name, n)
			}
		}

		// The seed that all name is up minutes later, when only the back-off is left.
		time.Sleep(3 * time.Minute)
		nine, _, stop := l.node(t, 9)
		stops = append(stops, stop)
		time.Sleep(45 * time.Second)
		if n := len(nine.Members()); n != 5 {
			t.Errorf("the late seed has %d members", n)
		}

		// A cut longer than the dead are remembered; then they find each other again.
		l.cut(hostAddr(5), true)
		time.Sleep(3 * time.Minute)
		if n := len(nodes[4].Members()); n != 0 {
			t.Errorf("a node that is cut off has %d members", n)
		}
		if err := nodes[4].Announce("web", []byte("alone")); err != nil {
			t.Fatal(err)
		}
		l.cut(hostAddr(5), false)
		time.Sleep(45 * time.Second)
		for _, c := range append(nodes, nine) {
			if n := len(c.Members()); n != 5 {
				t.Errorf("%s has %d members after the cut", c.cfg.Name, n)
			}
		}
		if got := nodes[1].digestOf(nodeID(5), "web"); got != "alone" {
			t.Errorf("the head from the other side is %q", got)
		}

		// The last of many heads arrives everywhere, with nothing but gossip.
		for i := range 3000 {
			if err := nodes[0].Announce("web", fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		for _, c := range nodes[1:] {
			if got := c.digestOf(nodeID(1), "web"); got != "2999" {
				t.Errorf("%s has head %q", c.cfg.Name, got)
			}
		}

		// Silence: nothing but heartbeats once all is said.
		before := nodes[2].Stats()
		time.Sleep(2 * time.Minute)
		after := nodes[2].Stats()
		if after.HeadsReceived != before.HeadsReceived || nodes[2].queue.NumQueued() != 0 {
			t.Errorf("heads go on: %+v then %+v, %d queued", before, after, nodes[2].queue.NumQueued())
		}

		for i, stop := range stops {
			began := time.Now()
			stop()
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("leaving took %v", took)
			}
			if i == 0 {
				time.Sleep(5 * time.Second)
				var gone []Gone
				for len(last) > 0 {
					if g, ok := (<-last).(Gone); ok && g.ID == nodeID(1) {
						gone = append(gone, g)
					}
				}
				if len(gone) == 0 || !gone[len(gone)-1].Left {
					t.Errorf("node 1 has left, node 5 was told %v", gone)
				}
			}
		}
		time.Sleep(time.Minute) // for what memberlist leaves behind
	})
}
