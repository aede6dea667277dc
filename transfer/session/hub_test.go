package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/transfer/trust"
)

func TestFramesBothWays(t *testing.T) {
	a, b := pair(t)
	if p := a.peer(b); p.Name != "beta" || p.Addr != b.Addr().String() || string(p.Hello) != "hello from beta" {
		t.Errorf("alpha met %+v", p)
	}
	if p := b.peer(a); p.Name != "alpha" || p.Addr != a.Addr().String() || string(p.Hello) != "hello from alpha" {
		t.Errorf("beta met %+v", p)
	}
	big := bytes.Repeat([]byte("x"), MaxPayload)
	for i, payload := range [][]byte{nil, []byte("one"), big, []byte("last")} {
		if err := a.Send(b.id.ID(), byte(i), payload); err != nil {
			t.Fatal(err)
		}
		got := find(b, "frame", func(f Frame) bool { return f.From == a.id.ID() && f.Type == byte(i) })
		if !bytes.Equal(got.Payload, payload) {
			t.Errorf("frame %d: %d bytes, want %d", i, len(got.Payload), len(payload))
		}
		if err := b.Send(a.id.ID(), byte(i), payload); err != nil {
			t.Fatal(err)
		}
		find(a, "frame back", func(f Frame) bool { return f.Type == byte(i) && bytes.Equal(f.Payload, payload) })
	}
	for typ, payload := range map[byte][]byte{firstOwnType: nil, 0xff: nil, 1: make([]byte, MaxPayload+1)} {
		if err := a.Send(b.id.ID(), typ, payload); !errors.Is(err, ErrFrame) {
			t.Errorf("sent %d bytes of type %#x: %v", len(payload), typ, err)
		}
	}
	if err := a.Send(signature.NodeID{1}, 1, nil); !errors.Is(err, ErrGone) {
		t.Errorf("sent to nobody: %v", err)
	}
}

func TestFramesKeepTheirOrder(t *testing.T) {
	a, b := pair(t)
	const n = 20000
	for i := range uint32(n) {
		p := binary.BigEndian.AppendUint32(nil, i)
		for {
			err := a.Send(b.id.ID(), 7, p)
			if err == nil {
				break
			}
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond) // full is the sender's to deal with
		}
	}
	find(b, "the last frame", func(f Frame) bool { return binary.BigEndian.Uint32(f.Payload) == n-1 })
	next := uint32(0)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ev := range b.told {
		if f, ok := ev.(Frame); ok {
			if got := binary.BigEndian.Uint32(f.Payload); got != next {
				t.Fatalf("frame %d came as number %d", got, next)
			}
			next++
		}
	}
}

// Both dial at once, again and again: one session, on which both agree.
func TestSimultaneousDial(t *testing.T) {
	keys := clusterKey(t)
	rounds := 40
	if testing.Short() {
		rounds = 5
	}
	for round := range rounds {
		a, b := newHost(t, nodeIdentity(t, "alpha", keys)), newHost(t, nodeIdentity(t, "beta", keys))
		start := make(chan struct{})
		for _, p := range [][2]*host{{a, b}, {b, a}} {
			p[0].wg.Go(func() {
				<-start
				id := p[1].id.ID()
				if rand.IntN(2) == 0 {
					id = signature.NodeID{}
				}
				p[0].Meet(id, p[1].Addr().String())
			})
		}
		close(start)
		a.waitUp(b)
		b.waitUp(a)
		until(t, "no dial under way", func() bool {
			for _, h := range []*host{a, b} {
				h.Hub.mu.Lock()
				busy := h.dialling > 0
				h.Hub.mu.Unlock()
				if busy {
					return false
				}
			}
			return true
		})
		sa, sb := a.session(b.id.ID()), b.session(a.id.ID())
		if sa == nil || sb == nil || sa.term != sb.term {
			t.Fatalf("round %d: the two do not agree: %v, %v", round, sa, sb)
		}
		if sa.c.NetConn().LocalAddr().String() != sb.c.NetConn().RemoteAddr().String() {
			t.Fatalf("round %d: the two keep different connections", round)
		}
		for _, p := range [][2]*host{{a, b}, {b, a}} {
			if err := p[0].Send(p[1].id.ID(), 1, []byte("over it")); err != nil {
				t.Fatal(err)
			}
			find(p[1], "frame", func(f Frame) bool { return string(f.Payload) == "over it" })
			if n := count[Down](p[0]); n != 0 {
				t.Errorf("round %d: %s went down %d times", round, p[0].name, n)
			}
		}
		a.stop()
		b.stop()
	}
}

func TestThreeNodesMeetAll(t *testing.T) {
	keys := clusterKey(t)
	var all []*host
	for i := range 3 {
		all = append(all, newHost(t, nodeIdentity(t, fmt.Sprint("n", i), keys)))
	}
	for _, a := range all {
		for _, b := range all {
			a.Meet(signature.NodeID{}, b.Addr().String()) // its own address too
		}
	}
	for _, a := range all {
		for _, b := range all {
			if a != b {
				a.waitUp(b)
			}
		}
	}
}

func TestOwnAddress(t *testing.T) {
	a := newHost(t, nodeIdentity(t, "alpha", clusterKey(t)))
	a.Meet(signature.NodeID{}, a.Addr().String())
	until(t, "a dial of itself", func() bool { return a.Counts().Dials == 1 })
	until(t, "its end", func() bool {
		a.Hub.mu.Lock()
		defer a.Hub.mu.Unlock()
		return a.dialling == 0
	})
	a.Meet(signature.NodeID{}, a.Addr().String())
	a.Hub.mu.Lock()
	next := a.places.byAddr[a.Addr().String()].next
	a.Hub.mu.Unlock()
	if time.Until(next) < time.Minute {
		t.Errorf("dials itself again at %v", next)
	}
	if n := count[Up](a); n != 0 {
		t.Error("has a session with itself")
	}
}

// The connection breaks, on either side: the session comes back by itself.
func TestReconnect(t *testing.T) {
	a, b := pair(t)
	for round := range 6 {
		cutter, other := a, b
		if round%2 == 1 {
			cutter, other = b, a
		}
		hangUp(cutter.session(other.id.ID()).c)
		for _, p := range [][2]*host{{a, b}, {b, a}} {
			p[0].wait("down and up again", func() bool {
				downs, ups := 0, 0
				for _, ev := range p[0].told {
					switch ev.(type) {
					case Down:
						downs++
					case Up:
						ups++
					}
				}
				return downs > round && ups == downs+1
			})
		}
	}
}

// A node restarts with its key while its peer still holds the old connection.
func TestRestart(t *testing.T) {
	keys := clusterKey(t)
	for range 4 { // each may be the lower one
		ida, idb := nodeIdentity(t, "alpha", keys), nodeIdentity(t, "beta", keys)
		a, b := newHost(t, ida), newHost(t, idb)
		a.Meet(idb.ID(), b.Addr().String())
		a.waitUp(b)
		b.waitUp(a)
		// The old process does not hear of its end: it is another Hub with the same key.
		twin := newHost(t, idb)
		twin.Meet(ida.ID(), a.Addr().String())
		twin.waitUp(a)
		down := find(a, "down", func(d Down) bool { return d.ID == idb.ID() })
		if !errors.Is(down.Err, ErrReplaced) {
			t.Errorf("the old session ended: %v", down.Err)
		}
		b.stop()
		twin.stop()
		a.stop()
	}
}

// A session that one side saw end is replaced although the other thinks it lives.
func TestHalfDead(t *testing.T) {
	a, b := pair(t, func(c *Config) { c.DeadAfter = time.Minute })
	lower, higher := a, b
	if b.id.ID().Compare(a.id.ID()) < 0 {
		lower, higher = b, a
	}
	old := lower.session(higher.id.ID())
	s := higher.session(lower.id.ID())
	higher.Hub.mu.Lock()
	higher.drop(s) // as if it had ended there, and its last word were lost
	higher.Hub.mu.Unlock()
	higher.Meet(lower.id.ID(), lower.Addr().String())
	until(t, "another session", func() bool { now := lower.session(higher.id.ID()); return now != nil && now != old })
	find(lower, "down", func(d Down) bool { return errors.Is(d.Err, ErrReplaced) })
	lower.waitUp(higher)
}

func TestDrop(t *testing.T) {
	a, b := pair(t, func(c *Config) { c.Quarantine = 300 * time.Millisecond })
	at := time.Now()
	a.Drop(b.id.ID(), errors.New("it said nonsense"))
	down := find(a, "down", func(Down) bool { return true })
	if !errors.Is(down.Err, ErrDropped) || !strings.Contains(down.Err.Error(), "nonsense") {
		t.Errorf("ended by %v", down.Err)
	}
	told := find(b, "down", func(Down) bool { return true })
	if !strings.Contains(told.Err.Error(), "nonsense") {
		t.Errorf("the other side was told %v", told.Err)
	}
	a.waitUp(b)
	if took := time.Since(at); took < 300*time.Millisecond {
		t.Errorf("back after %v, in quarantine for 300ms", took)
	}
	a.Drop(b.id.ID(), errors.New("again"))
	a.Hub.mu.Lock()
	s := a.strikes[b.id.ID()]
	a.Hub.mu.Unlock()
	if s.n != 2 || time.Until(s.until) < 400*time.Millisecond {
		t.Errorf("the second quarantine is no longer: %+v", s)
	}
}

// Nothing is heard, and the connection does not break: as with a pulled cable.
func TestDeadPeer(t *testing.T) {
	const dead = 400 * time.Millisecond
	keys := clusterKey(t)
	a := newHost(t, nodeIdentity(t, "alpha", keys), func(c *Config) { c.DeadAfter = dead })
	mute := dialMute(t, a, nodeIdentity(t, "mute", keys))
	defer hangUp(mute)
	at := time.Now()
	down := find(a, "down", func(Down) bool { return true })
	if !errors.Is(down.Err, ErrDead) {
		t.Errorf("ended by %v", down.Err)
	}
	if took := time.Since(at); took > 5*dead {
		t.Errorf("noticed after %v", took)
	}
}

// A quiet session is a live one.
func TestQuietSessionLives(t *testing.T) {
	a, b := pair(t, func(c *Config) { c.DeadAfter = 200 * time.Millisecond })
	end := time.After(time.Second)
	<-end // what must not happen has no event to wait for
	if n := count[Down](a) + count[Down](b); n != 0 {
		t.Errorf("%d sessions ended", n)
	}
}

// A peer that takes nothing fills its queue and nobody else's.
func TestSlowPeer(t *testing.T) {
	keys := clusterKey(t)
	const most = 1 << 20
	small := func(c *Config) { c.QueueBytes = most; c.QueueFrames = 100 }
	a := newHost(t, nodeIdentity(t, "alpha", keys), small)
	slow := newHost(t, nodeIdentity(t, "slow", keys))
	quick := newHost(t, nodeIdentity(t, "quick", keys))
	a.Meet(slow.id.ID(), slow.Addr().String())
	a.Meet(quick.id.ID(), quick.Addr().String())
	a.waitUp(slow, quick)
	slow.waitUp(a)
	slow.mu.Lock()
	slow.gate = make(chan struct{}) // its receiver of events stands still
	slow.mu.Unlock()

	payload := make([]byte, 64<<10)
	full := false
	for i := 0; i < 10000 && !full; i++ {
		err := a.Send(slow.id.ID(), 1, payload)
		full = errors.Is(err, ErrFull)
		if err != nil && !full {
			t.Fatal(err)
		}
		q := a.session(slow.id.ID()).queue
		q.mu.Lock()
		if q.bytes > most || q.frames > 100 {
			t.Fatalf("queued %d bytes in %d frames", q.bytes, q.frames)
		}
		q.mu.Unlock()
		if i%8 == 0 {
			time.Sleep(time.Millisecond) // let it go out
		}
	}
	if !full {
		t.Fatal("the queue to a peer that takes nothing is never full")
	}
	if err := a.Send(quick.id.ID(), 1, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	find(quick, "frame", func(f Frame) bool { return string(f.Payload) == "hi" })
}

func TestSecondKeyUnderAName(t *testing.T) {
	keys := clusterKey(t)
	a := newHost(t, nodeIdentity(t, "alpha", keys))
	b := newHost(t, nodeIdentity(t, "beta", keys))
	a.Meet(signature.NodeID{}, b.Addr().String())
	a.waitUp(b)
	fake := newHost(t, nodeIdentity(t, "beta", keys))
	fake.Meet(signature.NodeID{}, a.Addr().String())
	r := find(a, "refused", func(r Refused) bool { return errors.Is(r.Reason, trust.ErrOtherKey) })
	if r.Name != "beta" {
		t.Errorf("refused %+v", r)
	}
	find(fake, "being refused", func(r Refused) bool {
		return errors.Is(r.Reason, ErrRefusesUs) && strings.Contains(r.Reason.Error(), "another key")
	})
	if n := count[Up](fake); n != 0 {
		t.Error("the second beta has a session")
	}
	// The operator removes the first: its session ends, and the second gets in.
	if _, err := a.nodes.Remove(time.Now(), "beta"); err != nil {
		t.Fatal(err)
	}
	find(a, "down", func(d Down) bool { return d.ID == b.id.ID() && errors.Is(d.Err, trust.ErrRemoved) })
	a.waitUp(fake)
	find(a, "refused", func(r Refused) bool { return errors.Is(r.Reason, trust.ErrRemoved) })
}

func TestWrongKey(t *testing.T) {
	a := newHost(t, nodeIdentity(t, "alpha", clusterKey(t)))
	b := newHost(t, nodeIdentity(t, "beta", clusterKey(t)))
	a.Meet(b.id.ID(), b.Addr().String())
	find(a, "refused", func(r Refused) bool { return errors.Is(r.Reason, trust.ErrStranger) })
	find(b, "being refused", func(r Refused) bool { return errors.Is(r.Reason, ErrRefusesUs) })
	until(t, "more dials", func() bool { return a.Counts().Dials > 5 })
	if n := count[Refused](a); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// The keys change under a live session.
func TestRotationUnderway(t *testing.T) {
	oldKey, err := trust.GenerateClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	newKey, err := trust.GenerateClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	set := func(raw ...[]byte) trust.Keys {
		k, err := trust.NewKeys(raw...)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	quick := func(c *Config) { c.DeadAfter = 400 * time.Millisecond }
	a, b := newHost(t, nodeIdentity(t, "alpha", set(oldKey)), quick), newHost(t, nodeIdentity(t, "beta", set(oldKey)), quick)
	a.Meet(b.id.ID(), b.Addr().String())
	a.waitUp(b)
	for _, k := range []trust.Keys{set(oldKey, newKey), set(newKey, oldKey), set(newKey)} {
		for _, h := range []*host{a, b} {
			if err := h.id.Reload(k); err != nil {
				t.Fatal(err)
			}
			a.waitUp(b)
			b.waitUp(a)
		}
	}
	// The session was opened by the old key, so it ends and comes back by the new one.
	find(a, "down", func(Down) bool { return true })
	a.waitUp(b)
	b.waitUp(a)
	if err := a.id.Reload(set(oldKey)); err != nil {
		t.Fatal(err)
	}
	a.wait("no session", func() bool { return len(a.up) == 0 })
}

// A peer that is heard but takes nothing does not keep its session for ever.
func TestStalledPeer(t *testing.T) {
	keys := clusterKey(t)
	a := newHost(t, nodeIdentity(t, "alpha", keys), func(c *Config) { c.DeadAfter = 300 * time.Millisecond })
	id := nodeIdentity(t, "stalled", keys)
	c := dialMute(t, a, id)
	defer hangUp(c)
	if err := c.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	a.wg.Go(func() {
		for {
			if _, err := c.Write(appendFrame(nil, frame{typ: typePing})); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	until(t, "the end", func() bool { return errors.Is(a.Send(id.ID(), 1, make([]byte, MaxPayload)), ErrGone) })
	down := find(a, "down", func(Down) bool { return true })
	if errors.Is(down.Err, ErrDead) || !strings.Contains(down.Err.Error(), "write to peer") {
		t.Errorf("ended by %v", down.Err)
	}
	hangUp(c)
}
