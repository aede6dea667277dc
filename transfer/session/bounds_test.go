package session

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/clsync/clsync/signature"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newPlaces() *places {
	return &places{min: 100 * time.Millisecond, max: 10 * time.Second, byAddr: map[string]*place{}}
}

func anyone(signature.NodeID) bool { return true }

func addrs(ps []*place) (out []string) {
	for _, p := range ps {
		out = append(out, p.addr)
	}
	return out
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	p := newPlaces()
	now := start
	p.meet(now, signature.NodeID{1}, "a:1")
	var gaps []time.Duration
	last := now
	for range 20 {
		due, _ := p.due(now, anyone)
		if len(due) != 1 {
			t.Fatalf("due at %v: %v", now.Sub(start), addrs(due))
		}
		gaps = append(gaps, now.Sub(last))
		last = now
		if due, _ := p.due(now, anyone); len(due) != 0 {
			t.Fatal("dialled twice at once")
		}
		p.failed(now, "a:1", 0.999)
		due, again := p.due(now, anyone)
		if len(due) != 0 || !again.After(now) {
			t.Fatalf("no pause after a failure: %v, %v", addrs(due), again)
		}
		now = again
	}
	for i, gap := range gaps[2:10] {
		if gap < gaps[i+1] || gap > p.max {
			t.Errorf("pause %d is %v after %v", i+2, gap, gaps[i+1])
		}
	}
	if g := gaps[len(gaps)-1]; g < p.max/2 {
		t.Errorf("the pause does not grow: %v", gaps)
	}
	if a, b := backoff(time.Second, time.Hour, 5, 0), backoff(time.Second, time.Hour, 5, 0.9); a != 8*time.Second || b <= a || b >= 16*time.Second {
		t.Errorf("jitter: %v to %v", a, b)
	}
}

// A hint brings a dial forward; a flood of hints does not make a flood of dials.
func TestHints(t *testing.T) {
	p := newPlaces()
	now := start
	p.meet(now, signature.NodeID{}, "a:1")
	dials := 0
	for range 10 * 100 { // ten seconds of a hint every 10 ms
		p.meet(now, signature.NodeID{}, "a:1")
		if due, _ := p.due(now, anyone); len(due) > 0 {
			dials++
			p.failed(now, "a:1", 0.5)
		}
		now = now.Add(10 * time.Millisecond)
	}
	if dials < 8 || dials > 16 {
		t.Errorf("%d dials in ten seconds", dials)
	}
	// It never worked: without another hint it is forgotten.
	p.due(now.Add(hintFor+time.Second), anyone)
	if len(p.byAddr) != 0 {
		t.Errorf("kept %v", p.byAddr)
	}
}

func TestPlacesThatWorkedAreKept(t *testing.T) {
	p := newPlaces()
	id := signature.NodeID{1}
	p.meet(start, signature.NodeID{}, "a:1")
	if due, _ := p.due(start, anyone); len(due) != 1 {
		t.Fatal("not dialled")
	}
	p.reached(start, "a:1", id)
	live := true
	wanted := func(signature.NodeID) bool { return !live }
	later := start.Add(30 * 24 * time.Hour)
	if due, _ := p.due(later, wanted); len(due) != 0 {
		t.Errorf("dialled %v with a live session", addrs(due))
	}
	live = false
	p.lost(later, id, time.Hour, 0)
	if due, again := p.due(later, wanted); len(due) != 0 || again.Sub(later) != p.min/2 {
		t.Errorf("after the loss: %v, %v", addrs(due), again.Sub(later))
	}
	if due, _ := p.due(later.Add(p.min), wanted); len(due) != 1 {
		t.Error("not dialled again")
	}
	p.reached(later, "a:1", id)
	p.forget(id, "")
	if len(p.byAddr) != 0 {
		t.Error("not forgotten")
	}
}

// Sessions that come and go at once are failures too.
func TestShortSessionsBackOff(t *testing.T) {
	p := newPlaces()
	id := signature.NodeID{1}
	p.meet(start, id, "a:1")
	now := start
	var pause time.Duration
	for range 12 {
		p.due(now, anyone)
		p.reached(now, "a:1", id)
		p.lost(now, id, time.Millisecond, 0)
		pause = p.byAddr["a:1"].next.Sub(now)
		now = now.Add(pause)
	}
	if pause != p.max/2 {
		t.Errorf("the pause is %v", pause)
	}
	p.due(now, anyone)
	p.reached(now, "a:1", id)
	p.lost(now, id, time.Hour, 0)
	if pause = p.byAddr["a:1"].next.Sub(now); pause != p.min/2 {
		t.Errorf("after a long session the pause is %v", pause)
	}
}

func TestPlacesAreBounded(t *testing.T) {
	p := newPlaces()
	good := signature.NodeID{1}
	p.meet(start, good, "good:1")
	p.due(start, anyone)
	p.reached(start, "good:1", good)
	for i := range 3 * maxPlaces {
		p.meet(start, signature.NodeID{}, fmt.Sprint("hint:", i))
	}
	if len(p.byAddr) > maxPlaces || p.byAddr["good:1"] == nil {
		t.Errorf("%d places; the one that worked: %v", len(p.byAddr), p.byAddr["good:1"])
	}
	for i := range 3 * maxPlacesEach {
		p.meet(start, good, fmt.Sprint("elsewhere:", i))
	}
	n := 0
	for _, at := range p.byAddr {
		if at.id == good {
			n++
		}
	}
	if n > maxPlacesEach || p.byAddr["good:1"] == nil {
		t.Errorf("%d places of one peer", n)
	}
	// One of a peer's places at a time, the one that worked first.
	due, _ := p.due(start.Add(time.Minute), func(id signature.NodeID) bool { return id == good })
	n = 0
	for _, at := range due {
		if at.id == good {
			n++
			if at.addr != "good:1" {
				t.Errorf("dials %s first", at.addr)
			}
		}
	}
	if n != 1 {
		t.Errorf("dials %d places of one peer at once", n)
	}
}

func TestGate(t *testing.T) {
	g := gate{maxPending: 4, perAddress: 2, perSecond: 10}
	ip := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	in := func(addr string, member bool) (func(), bool) { return g.enter(start, ip(addr), member) }
	leave1, ok1 := in("10.0.0.1", false)
	_, ok2 := in("10.0.0.1", false)
	if _, ok := in("10.0.0.1", false); !ok1 || !ok2 || ok {
		t.Error("an address may have two at once")
	}
	if _, ok := in("::ffff:10.0.0.1", false); ok {
		t.Error("the same address in another dress")
	}
	leave1()
	leave1() // once is enough
	if _, ok := in("10.0.0.1", false); !ok {
		t.Error("a place was given back")
	}
	in("10.0.0.2", false)
	in("10.0.0.3", false)
	if _, ok := in("10.0.0.4", false); ok {
		t.Error("four at once in all")
	}
	for i := range 4 {
		if _, ok := in("10.0.0.9", true); !ok {
			t.Errorf("member %d is kept out by strangers", i)
		}
	}
	if _, ok := in("10.0.0.9", true); ok {
		t.Error("members are not bounded")
	}
}

func TestGateRate(t *testing.T) {
	g := gate{maxPending: 1000, perAddress: 1000, perSecond: 10}
	let := func(now time.Time, ip netip.Addr) (n int) {
		for range 100 {
			if leave, ok := g.enter(now, ip, false); ok {
				leave()
				n++
			}
		}
		return n
	}
	ip := netip.MustParseAddr("2001:db8::1")
	if n := let(start, ip); n != 10 {
		t.Errorf("%d at once, want 10", n)
	}
	if n := let(start, netip.MustParseAddr("2001:db8::2")); n != 0 {
		t.Errorf("%d more from the same network", n)
	}
	if n := let(start.Add(time.Second), ip); n != 10 {
		t.Errorf("%d after a second, want 10", n)
	}
	b := [4]byte{10}
	for i := range 10 * maxVisitors {
		b[2], b[3] = byte(i>>8), byte(i)
		if leave, ok := g.enter(start, netip.AddrFrom4(b), false); ok {
			leave()
		}
	}
	if len(g.visitors) > maxVisitors {
		t.Errorf("remembers %d addresses", len(g.visitors))
	}
	if _, ok := g.enter(start.Add(time.Minute), netip.MustParseAddr("10.9.9.9"), false); !ok {
		t.Error("the table stays full")
	}
}

func TestQueue(t *testing.T) {
	q := newQueue(3, 100)
	one := frame{1, make([]byte, 20)}
	for range 3 {
		if err := q.put(one); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.put(one); !errors.Is(err, ErrFull) {
		t.Errorf("the fourth frame: %v", err)
	}
	fs := q.take()
	if err := q.put(one); len(fs) != 3 || !errors.Is(err, ErrFull) {
		t.Errorf("what is taken and not written counts: %d, %v", len(fs), err)
	}
	q.wrote(fs[0])
	if err := q.put(frame{1, make([]byte, 50)}); !errors.Is(err, ErrFull) {
		t.Errorf("too many bytes: %v", err)
	}
	q.wrote(fs[1])
	q.wrote(fs[2])
	if err := q.put(frame{1, make([]byte, 1000)}); err != nil {
		t.Errorf("one large frame goes through an empty queue: %v", err)
	}
	q.close()
	if err := q.put(one); !errors.Is(err, ErrGone) {
		t.Errorf("closed: %v", err)
	}
}

func TestReports(t *testing.T) {
	var r reports
	now := start
	n := 0
	for range 100 {
		if _, ok := r.first(now, "a"); ok {
			n++
		}
		now = now.Add(time.Second)
	}
	if n != 10 {
		t.Errorf("%d reports in 100 seconds", n)
	}
	if skipped, ok := r.first(now, "a"); !ok || skipped != 9 {
		t.Errorf("skipped %d, %v", skipped, ok)
	}
	for i := range 10 * maxReports {
		r.first(now, fmt.Sprint(i))
	}
	if len(r.last) > maxReports {
		t.Errorf("remembers %d", len(r.last))
	}
	if _, ok := r.first(now.Add(time.Minute), "new"); !ok {
		t.Error("the table stays full")
	}
}

func TestReach(t *testing.T) {
	for _, tt := range []struct{ listens, seen, want string }{
		{"0.0.0.0:7", "10.0.0.1", "10.0.0.1:7"},
		{"[::]:7", "10.0.0.1", "10.0.0.1:7"},
		{"[::]:7", "fe80::1%eth0", "[fe80::1%eth0]:7"},
		{"10.0.0.9:7", "10.0.0.1", "10.0.0.9:7"},
		{"[::ffff:10.0.0.9]:7", "10.0.0.1", "10.0.0.9:7"},
		{"127.0.0.1:7", "10.0.0.1", "10.0.0.1:7"}, // nobody else's loopback
		{"127.0.0.1:7", "127.0.0.1", "127.0.0.1:7"},
	} {
		h := hello{listen: netip.MustParseAddrPort(tt.listens)}
		if got := h.reach(netip.MustParseAddr(tt.seen)).String(); got != tt.want {
			t.Errorf("listens at %s, seen from %s: %s, want %s", tt.listens, tt.seen, got, tt.want)
		}
	}
}
