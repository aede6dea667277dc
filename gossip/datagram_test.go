package gossip

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func hintOf(b byte, counter uint64) datagram {
	return datagram{
		kind: kindHint, node: nodeID(b), sessionPort: 7001, gossipPort: 7946, boot: 100, counter: counter,
		tree: "web", seq: 3, digest: strings.Repeat("d", MaxDigest),
	}
}

func beaconOf(b byte, counter uint64) datagram {
	return datagram{kind: kindBeacon, node: nodeID(b), sessionPort: 7001, gossipPort: 7946, boot: 100, counter: counter}
}

// A receiver is a caster that hears but has no socket.
func receiver() (*caster, *[]datagram) {
	var got []datagram
	k := &caster{id: nodeID(1), heads: newHeads(nodeID(1), 50), stats: &counters{}, log: slog.New(slog.DiscardHandler)}
	k.heard = func(d datagram, _ netip.Addr, _ func() bool) { got = append(got, d) }
	s := newSeal("test", [][]byte{key(1), key(2)})
	k.seal.Store(&s)
	return k, &got
}

func TestDatagramRoundTrip(t *testing.T) {
	s := newSeal("test", [][]byte{key(1), key(2)})
	for _, d := range []datagram{hintOf(2, 7), beaconOf(3, 1)} {
		b := s.close(d)
		got, err := s.open(b)
		if err != nil || got != d {
			t.Errorf("opened %+v, %v; want %+v", got, err, d)
		}
		if got, err := newSeal("test", [][]byte{key(9), key(1)}).open(b); err != nil || got != d {
			t.Errorf("by the second key: %+v, %v", got, err)
		}
		if _, err := newSeal("test", [][]byte{key(2)}).open(b); !errors.Is(err, errHMAC) {
			t.Errorf("by another key: %v", err)
		}
		if _, err := newSeal("other", [][]byte{key(1)}).open(b); !errors.Is(err, errStranger) {
			t.Errorf("in another cluster: %v", err)
		}
		for i := range b {
			bad := bytes.Clone(b)
			bad[i] ^= 1
			if _, err := s.open(bad); err == nil {
				t.Fatalf("byte %d of %d may be anything", i, len(b))
			}
			if _, err := s.open(b[:i]); err == nil {
				t.Fatalf("the first %d of %d bytes are enough", i, len(b))
			}
		}
	}
	longest := hintOf(2, maxSeq)
	longest.boot, longest.seq, longest.tree = maxBoot, maxSeq, strings.Repeat("t", MaxTree)
	if b := s.close(longest); !s.ours(b) {
		t.Errorf("the longest hint has %d bytes", len(b))
	}
}

func TestReplayedAndForged(t *testing.T) {
	k, got := receiver()
	g := newGuard()
	now := time.Now()
	src := netip.MustParseAddr("10.0.0.2")
	s := *k.seal.Load()
	forger := newSeal("test", [][]byte{key(9)})

	one, two := s.close(beaconOf(2, 1)), s.close(beaconOf(2, 2))
	k.take(g, now, one, src)
	k.take(g, now, two, src)
	k.take(g, now, two, netip.MustParseAddr("10.0.0.66")) // from elsewhere is a replay all the same
	k.take(g, now, one, src)
	k.take(g, now, forger.close(beaconOf(2, 3)), src)
	k.take(g, now, []byte("clsb"), src)
	k.take(g, now, nil, src)
	own := beaconOf(1, 9)
	own.boot = 50
	k.take(g, now, s.close(own), src)
	if len(*got) != 2 {
		t.Errorf("%d datagrams counted, want 2", len(*got))
	}
	st := k.stats.snapshot()
	if st.Replayed != 2 || st.BadHMAC != 1 || st.BadDatagrams != 2 || st.BeaconsReceived != 2 {
		t.Errorf("stats %+v", st)
	}

	// A new boot starts again, and the old one is still known.
	boot := beaconOf(2, 1)
	boot.boot = 99
	k.take(g, now, s.close(boot), src)
	k.take(g, now, two, src)
	if len(*got) != 3 {
		t.Errorf("%d datagrams counted, want 3", len(*got))
	}
}

func TestFloodStaysBounded(t *testing.T) {
	k, got := receiver()
	g := newGuard()
	s := *k.seal.Load()
	forger := newSeal("test", [][]byte{key(9)})
	now := time.Now()
	r := rand.New(rand.NewPCG(1, 2))
	forged := forger.close(beaconOf(2, 1))
	for i := range 20_000 {
		src := netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(i >> 8), byte(i)})
		k.take(g, now, forged, src)
		if i%10 == 0 {
			k.take(g, now, s.close(beaconOf(byte(2+i%200), uint64(i+1))), netip.MustParseAddr("10.9.9.9"))
		}
	}
	st := k.stats.snapshot()
	if opened := st.BadHMAC + st.BeaconsReceived; opened > totalBurst {
		t.Errorf("%d datagrams opened in one moment, want %d at most", opened, totalBurst)
	}
	if st.BeaconsReceived == 0 || st.BeaconsReceived > sourceBurst+maxSources || uint64(len(*got)) != st.BeaconsReceived {
		t.Errorf("%d beacons of one source in one moment", st.BeaconsReceived)
	}
	if len(g.sources) > maxSources || len(g.senders) > maxSenders {
		t.Errorf("%d sources and %d senders remembered", len(g.sources), len(g.senders))
	}
	if st.RateLimited+st.BadHMAC+st.BeaconsReceived+st.Replayed != 22_000 {
		t.Errorf("not every datagram was counted: %+v", st)
	}
	for i := range 2 * maxSenders {
		d := beaconOf(2, 1)
		d.node[0], d.node[1] = byte(i>>8), byte(i)
		g.fresh(d)
	}
	if len(g.senders) > maxSenders {
		t.Errorf("%d senders remembered", len(g.senders))
	}
	// Afterwards an honest one is heard again.
	before := len(*got)
	k.take(g, now.Add(time.Second), s.close(beaconOf(250, 1<<40)), netip.MustParseAddr("10.8.8.8"))
	if len(*got) != before+1 {
		t.Error("deaf after a flood")
	}
}

// A flood of 20 000 nodes that are found leads to few events and few joins.
func TestFloodOfFound(t *testing.T) {
	cfg := config(1)
	cfg.Multicast = MulticastConfig{}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := newGuard()
	now := time.Now()
	for i := range 20_000 {
		d := hintOf(2, 1)
		d.node[0], d.node[1] = byte(i>>8), byte(i)
		if !g.fresh(d) {
			t.Fatal("a new node's datagram is not fresh")
		}
		c.heard(d, netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), func() bool { return g.mayReport(now, d.node) })
	}
	if n := len(c.seek.targets); n > maxFound {
		t.Errorf("%d nodes to be joined", n)
	}
	if n := len(c.box.line); n > maxHints {
		t.Errorf("%d events queued", n)
	}
	if n := len(c.heads.other); n > maxHeads {
		t.Errorf("%d heads kept", n)
	}
	if s := c.Stats(); s.HeadsDropped == 0 {
		t.Error("nothing was dropped, or it was not counted")
	}
}

func TestMessageRoundTrip(t *testing.T) {
	h := head{node: nodeID(2), boot: 7, seq: 9, tree: "a\x80b", digest: "xyz"}
	b, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, _, kind, err := decodeMessage(b)
	if err != nil || kind != kindHead || got != h {
		t.Errorf("head %+v, kind %d, %v", got, kind, err)
	}
	_, f, kind, err := decodeMessage(farewell{node: nodeID(3)}.encode())
	if err != nil || kind != kindLeave || f.node != nodeID(3) {
		t.Errorf("farewell %+v, kind %d, %v", f, kind, err)
	}
	hs, err := decodeState(encodeState([]head{h, h}))
	if err != nil || len(hs) != 2 || hs[1] != h {
		t.Errorf("state %+v, %v", hs, err)
	}
	m := meta{id: nodeID(1), port: 7, name: strings.Repeat("n", MaxName), version: strings.Repeat("v", maxVersion)}
	b = m.encode()
	if len(b) > 512 {
		t.Errorf("metadata of %d bytes, memberlist takes 512", len(b))
	}
	if got, err := decodeMeta(b); err != nil || got != m {
		t.Errorf("metadata %+v, %v", got, err)
	}
	many := make([]head, maxHeads)
	for i := range many {
		many[i] = head{node: nodeID(2), boot: maxBoot, seq: maxSeq, tree: strings.Repeat("t", MaxTree), digest: strings.Repeat("d", MaxDigest)}
	}
	b = encodeState(many)
	if len(b) > maxState {
		t.Errorf("state of %d bytes", len(b))
	}
	if hs, err := decodeState(b); err != nil || len(hs) < 500 {
		t.Errorf("cut state: %d heads, %v", len(hs), err)
	}
	if _, _, _, err := decodeMessage(make([]byte, MaxMessage+1)); !errors.Is(err, ErrTooBig) {
		t.Errorf("long message: %v", err)
	}
}

// FuzzDecode feeds everything that reads bytes from others. What is read must
// read the same again once written.
func FuzzDecode(f *testing.F) {
	s := newSeal("test", [][]byte{key(1)})
	h := head{node: nodeID(2), boot: 7, seq: 9, tree: "web", digest: "xyz"}
	b, err := h.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(farewell{node: nodeID(3)}.encode())
	f.Add(encodeState([]head{h}))
	f.Add(meta{id: nodeID(1), port: 7, name: "n", version: "v"}.encode())
	f.Add(s.close(hintOf(2, 1)))
	f.Add(s.close(beaconOf(2, 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, fw, kind, err := decodeMessage(b); err == nil {
			again := fw.encode()
			if kind == kindHead {
				if again, err = h.encode(); err != nil {
					t.Fatal(err)
				}
			}
			if h2, fw2, kind2, err := decodeMessage(again); err != nil || h2 != h || fw2 != fw || kind2 != kind {
				t.Fatalf("%+v %+v became %+v %+v, %v", h, fw, h2, fw2, err)
			}
		}
		if hs, err := decodeState(b); err == nil {
			if hs2, err := decodeState(encodeState(hs)); err != nil || len(hs2) > len(hs) {
				t.Fatalf("%d heads became %d, %v", len(hs), len(hs2), err)
			}
		}
		if m, err := decodeMeta(b); err == nil {
			if m2, err := decodeMeta(m.encode()); err != nil || m2 != m {
				t.Fatalf("%+v became %+v, %v", m, m2, err)
			}
		}
		if _, err := s.open(b); err == nil && len(b) > MaxMessage {
			t.Fatalf("a datagram of %d bytes", len(b))
		}
		// The same bytes, signed: what comes from a holder of the key.
		if len(b) < MaxMessage/2 {
			body := append(bytes.Clone(s.header), b...)
			if d, err := s.open(append(body, s.mac(s.keys[0], body)...)); err == nil {
				if d2, err := s.open(s.close(d)); err != nil || d2 != d {
					t.Fatalf("%+v became %+v, %v", d, d2, err)
				}
			}
		}
		parseLine(b)
	})
}
