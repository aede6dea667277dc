package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clsync/clsync/signature"
)

// ether is a medium that keeps what is sent, with the time.
type ether struct {
	mu     sync.Mutex
	sent   []sentDatagram
	seal   seal
	closed chan struct{}
	fresh  bool
}

type sentDatagram struct {
	at time.Time
	d  datagram
}

func (e *ether) refresh() (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	was := e.fresh
	e.fresh = false
	return was, nil
}

func (e *ether) send(next func() []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	d, err := e.seal.open(next())
	if err != nil {
		return 0, err
	}
	e.sent = append(e.sent, sentDatagram{time.Now(), d})
	return 1, nil
}

func (e *ether) recv([]byte) (int, netip.Addr, error) {
	<-e.closed
	return 0, netip.Addr{}, errors.New("closed")
}

func (e *ether) Close() error { close(e.closed); return nil }

func (e *ether) of(kind uint64) (out []sentDatagram) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.sent {
		if s.d.kind == kind {
			out = append(out, s)
		}
	}
	return out
}

func speaking(ctx context.Context) (*caster, *ether, func()) {
	s := newSeal("test", [][]byte{key(1)})
	e := &ether{seal: s, closed: make(chan struct{})}
	k := &caster{
		id: nodeID(1), sessionPort: 7, gossipPort: func() uint16 { return 8 },
		heads: newHeads(nodeID(1), 50), pace: LAN.pace(), stats: &counters{},
		log: slog.New(slog.DiscardHandler), pending: map[string]struct{}{}, kick: make(chan struct{}, 1),
		open: func() (medium, error) { return e, nil },
	}
	k.seal.Store(&s)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- k.run(ctx) }()
	return k, e, func() { cancel(); <-done }
}

func TestBeaconsAreFastAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, e, stop := speaking(t.Context())
		time.Sleep(1300 * time.Millisecond)
		if n := len(e.of(kindBeacon)); n != 3 {
			t.Errorf("%d beacons in the first 1.3 s, want 3", n)
		}
		time.Sleep(time.Minute)
		all := e.of(kindBeacon)
		if n := len(all); n < 3+9 || n > 3+16 {
			t.Errorf("%d beacons in a minute", n)
		}
		for i, s := range all {
			if s.d.counter != uint64(i+1) {
				t.Fatalf("beacon %d has counter %d", i, s.d.counter)
			}
			if i > 3 {
				if gap := s.at.Sub(all[i-1].at); gap < 4*time.Second || gap > 6*time.Second {
					t.Errorf("beacon %d after %v", i, gap)
				}
			}
		}
		if first := all[0].at.Sub(began); first > 300*time.Millisecond {
			t.Errorf("first beacon after %v", first)
		}
		// A new interface is greeted at once.
		e.mu.Lock()
		e.fresh = true
		before := len(e.sent)
		e.mu.Unlock()
		time.Sleep(10*time.Second + 1300*time.Millisecond)
		if n := len(e.of(kindBeacon)) - before; n < 4 {
			t.Errorf("%d beacons around a new interface", n)
		}
		stop()
	})
}

func TestHintsAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, e, stop := speaking(t.Context())
		time.Sleep(3 * time.Second)
		synctest.Wait()
		began := time.Now()
		for i := range 1000 {
			for _, tree := range []string{"a", "b"} {
				if _, _, err := k.heads.announce(tree, fmt.Append(nil, i)); err != nil {
					t.Fatal(err)
				}
				k.hint(tree)
			}
			synctest.Wait()
			if i == 0 {
				if hints := e.of(kindHint); len(hints) != 2 || hints[0].at != began {
					t.Errorf("the first heads did not go at once: %d", len(hints))
				}
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		last := map[string]sentDatagram{}
		for _, s := range e.of(kindHint) {
			if p, ok := last[s.d.tree]; ok && s.at.Sub(p.at) < hintEvery {
				t.Fatalf("two heads of %s within %v", s.d.tree, s.at.Sub(p.at))
			}
			last[s.d.tree] = s
		}
		for _, tree := range []string{"a", "b"} {
			if last[tree].d.digest != "999" {
				t.Errorf("the last head of %s was %q", tree, last[tree].d.digest)
			}
		}
		if n := len(e.of(kindHint)); n < 80 || n > 104 {
			t.Errorf("%d hints in a second of two trees", n)
		}
		stop()
	})
}

func TestManyTreesStayBelowTheSendersLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, e, stop := speaking(t.Context())
		for i := range MaxTrees {
			tree := fmt.Sprint("tree ", i)
			if _, _, err := k.heads.announce(tree, []byte("x")); err != nil {
				t.Fatal(err)
			}
			k.hint(tree)
		}
		time.Sleep(500 * time.Millisecond)
		if n := len(e.of(kindHint)); n > sendBurst+sendRate/2+1 {
			t.Errorf("%d hints in half a second", n)
		}
		time.Sleep(time.Second)
		if n := len(e.of(kindHint)); n != MaxTrees {
			t.Errorf("%d hints, want one for each of %d trees", n, MaxTrees)
		}
		stop()
	})
}

func TestSeedsAreTriedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var tries []time.Time
		up := false
		s := newSeeker([]string{"seed.example", "10.0.0.9"}, LAN.pace(), slog.New(slog.DiscardHandler))
		s.port = 7946
		s.member = func(signature.NodeID) bool { return false }
		s.present = func(a netip.AddrPort) bool {
			mu.Lock()
			defer mu.Unlock()
			return a == addrPort("10.0.0.9:7946") || up && a == addrPort("10.0.0.1:7946")
		}
		s.lookup = func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
		}
		s.join = func(_ signature.NodeID, a netip.AddrPort) error {
			mu.Lock()
			defer mu.Unlock()
			if a != addrPort("10.0.0.1:7946") {
				t.Errorf("joined %v", a)
			}
			tries = append(tries, time.Now())
			return errors.New("refused")
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.run(ctx) }()
		time.Sleep(time.Hour)
		mu.Lock()
		n := len(tries)
		if n < 90 || n > 180 {
			t.Errorf("%d attempts in an hour", n)
		}
		for i := 1; i < n; i++ {
			if gap := tries[i].Sub(tries[i-1]); gap < 300*time.Millisecond || gap > 40*time.Second {
				t.Errorf("attempt %d after %v", i, gap)
			}
		}
		up = true
		mu.Unlock()
		time.Sleep(time.Hour)
		mu.Lock()
		if len(tries) > n+1 {
			t.Errorf("%d attempts while the seed is a member", len(tries)-n)
		}
		n, up = len(tries), false
		mu.Unlock()
		time.Sleep(4 * time.Second)
		mu.Lock()
		if len(tries) == n {
			t.Error("a seed that was lost is not tried again soon")
		}
		mu.Unlock()
		cancel()
		<-done
	})
}

func TestLostMembersAreBounded(t *testing.T) {
	s := newSeeker(nil, LAN.pace(), slog.New(slog.DiscardHandler))
	for i := range byte(200) {
		s.lose(nodeID(i+1), addrPort("10.0.0.1:1"))
	}
	if len(s.targets) != maxLost || s.lost != maxLost {
		t.Errorf("%d lost members kept, counted %d", len(s.targets), s.lost)
	}
	for i := range byte(200) {
		s.forget(nodeID(i + 1))
	}
	if len(s.targets) != 0 || s.lost != 0 {
		t.Errorf("%d left, counted %d", len(s.targets), s.lost)
	}
}

func TestMailbox(t *testing.T) {
	m := newMailbox()
	alive := func(b byte) { m.member(nodeID(b), Alive{Member: Member{ID: nodeID(b)}}) }
	gone := func(b byte) { m.member(nodeID(b), Gone{ID: nodeID(b)}) }
	take := func() Event {
		ev, ok := m.take()
		if !ok {
			return nil
		}
		return ev
	}
	for i := range 3 * maxHints {
		room := m.hint(hintKey{about: fmt.Sprint(i)}, Head{Tree: fmt.Sprint(i)})
		if room != (i < maxHints) {
			t.Fatalf("hint %d: room %v", i, room)
		}
	}
	if !m.hint(hintKey{about: "0"}, Head{Tree: "newest"}) {
		t.Error("no room for a newer hint about the same")
	}
	alive(1)
	gone(1) // the reader never knew it
	alive(2)
	if ev, ok := take().(Alive); !ok || ev.Member.ID != nodeID(2) {
		t.Errorf("took %v, want that 2 is alive, ahead of all hints", ev)
	}
	gone(2)
	alive(2)
	gone(2)
	if ev, ok := take().(Gone); !ok || ev.ID != nodeID(2) {
		t.Errorf("took %v, want that 2 is gone", ev)
	}
	gone(2)
	if ev, ok := take().(Head); !ok || ev.Tree != "newest" {
		t.Errorf("took %v, want the newest hint in the oldest's place", ev)
	}
	n := 1
	for take() != nil {
		n++
	}
	if n != maxHints {
		t.Errorf("%d hints, want %d", n, maxHints)
	}
}

func TestSlowReaderHoldsNobodyUp(t *testing.T) {
	cfg := config(1)
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5000 {
		c.learn(head{node: nodeID(byte(2 + i%100)), boot: 1, seq: uint64(i + 1), tree: fmt.Sprint(i % 2000), digest: "d"})
	}
	s := c.Stats()
	if s.HeadsDropped == 0 || s.HeadsReceived < maxHints {
		t.Errorf("stats %+v", s)
	}
	if n := len(c.heads.other); n > maxHeads {
		t.Errorf("%d heads kept", n)
	}
	for i := range 20 * MaxTrees { // nobody is a member: the old make room
		c.learn(head{node: nodeID(byte(220 + i/MaxTrees)), boot: 1, seq: uint64(i + 1), tree: fmt.Sprint(i), digest: "d"})
	}
	if n := len(c.heads.other); n != maxHeads {
		t.Errorf("%d heads kept, want %d", n, maxHeads)
	}
	for i := range MaxTrees + 10 {
		c.learn(head{node: nodeID(200), boot: 1, seq: uint64(i + 1), tree: fmt.Sprint(i), digest: "d"})
	}
	if n := c.heads.count[nodeID(200)]; n > MaxTrees {
		t.Errorf("%d heads of one node", n)
	}
}

func TestNewestHeadWins(t *testing.T) {
	yes := func(signature.NodeID) bool { return true }
	h := func(boot, seq uint64) head { return head{node: nodeID(2), boot: boot, seq: seq, tree: "web"} }
	for _, tt := range []struct{ old, new head }{
		{h(1, 1), h(1, 2)},
		{h(1, 9), h(2, 1)},
	} {
		one, two := newHeads(nodeID(1), 1), newHeads(nodeID(1), 1)
		now := time.Now()
		if one.learn(now, tt.old, yes) != fresh || one.learn(now, tt.new, yes) != fresh || one.learn(now, tt.new, yes) != stale {
			t.Errorf("%v then %v: not taken in once each", tt.old, tt.new)
		}
		if two.learn(now, tt.new, yes) != fresh || two.learn(now, tt.old, yes) != stale {
			t.Errorf("%v then %v: the older was taken in", tt.new, tt.old)
		}
	}
	// Two clones do not outbid each other without end.
	now := time.Now()
	a := newHeads(nodeID(1), 10)
	mine := func(boot uint64) head { return head{node: nodeID(1), boot: boot, seq: 1, tree: "web"} }
	if a.learn(now, mine(20), yes) != outbid || a.boot != 21 {
		t.Errorf("boot %d, want 21", a.boot)
	}
	if a.learn(now.Add(time.Second), mine(30), yes) != stale || a.boot != 21 {
		t.Errorf("boot %d a second later", a.boot)
	}
	if a.learn(now.Add(time.Hour), mine(maxBoot), yes) != stale {
		t.Error("outbid the greatest boot there is")
	}
}

func TestLogBridge(t *testing.T) {
	for line, want := range map[string]struct {
		level slog.Level
		said  string
	}{
		"[DEBUG] memberlist: Stream connection\n": {slog.LevelDebug, "Stream connection"},
		"[INFO] memberlist: x":                    {slog.LevelInfo, "x"},
		"[WARN] memberlist: y":                    {slog.LevelWarn, "y"},
		"[ERR] Failed to shutdown":                {slog.LevelWarn, "Failed to shutdown"},
		"Err: no prefix":                          {slog.LevelWarn, "Err: no prefix"},
	} {
		if level, said := parseLine([]byte(line)); level != want.level || said != want.said {
			t.Errorf("%q: %v %q", line, level, said)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := newBridge(slog.New(slog.NewTextHandler(&out, nil)))
		for range 1000 {
			l.Print("[ERR] memberlist: Decrypt packet failed")
			l.Print("[DEBUG] memberlist: nothing")
		}
		time.Sleep(time.Second)
		l.Print("[WARN] memberlist: later")
		if n := strings.Count(out.String(), "\n"); n != 21 {
			t.Errorf("%d lines", n)
		}
		if !strings.Contains(out.String(), "suppressed=980") || strings.Contains(out.String(), "nothing") {
			t.Errorf("%.300s", out.String())
		}
	})
}
