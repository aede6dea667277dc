package session

import (
	"bufio"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/transfer/trust"
)

// dialTLS opens a connection by hand as a member.
func dialTLS(t testing.TB, h *host, id *trust.Identity) *tls.Conn {
	t.Helper()
	raw, err := net.Dial("tcp", h.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(newConn(raw), id.TLSClient(h.id.ID()))
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c
}

// dialMute opens a session by hand, and says nothing in it.
func dialMute(t testing.TB, h *host, id *trust.Identity) *tls.Conn {
	t.Helper()
	c := dialTLS(t, h, id)
	me := hello{instance: instance{1}, listen: netip.MustParseAddrPort("127.0.0.1:1")}
	if _, err := c.Write(appendFrame([]byte{prefaceControl}, frame{typeHello, me.encode()})); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	f, err := readFrame(br, maxFrame)
	if err != nil || f.typ != typeHello {
		t.Fatalf("%#x, %v", f.typ, err)
	}
	if h.id.ID().Compare(id.ID()) > 0 { // the verdict is ours
		if _, err := c.Write(appendFrame(nil, frame{typeKeep, encodeKeep(1)})); err != nil {
			t.Fatal(err)
		}
	}
	find(h, id.Name()+" up", func(u Up) bool { return u.Peer.ID == id.ID() })
	return c
}

// closes waits until the other side ends the connection.
func closes(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); isTimeout(err) {
		t.Error("the connection is still open")
	}
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

func TestStrangersAreHungUpOn(t *testing.T) {
	a := newHost(t, nodeIdentity(t, "alpha", clusterKey(t)), func(c *Config) { c.HandshakeTimeout = 300 * time.Millisecond })
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	say := map[string][]byte{
		"plain text":   []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"random bytes": noise,
		"nothing":      nil,
		"half a hello": {0x16, 0x03, 0x01, 0xff, 0xff, 0x01},
	}
	for name, b := range say {
		t.Run(name, func(t *testing.T) {
			before := a.Counts().Handshakes
			c, err := net.Dial("tcp", a.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			_, _ = c.Write(b) // it may be refused halfway
			closes(t, c)
			until(t, "the count", func() bool { return a.Counts().Handshakes > before })
		})
	}
	if n := a.Counts().Malformed; n != 0 {
		t.Errorf("%d strangers came as far as frames", n)
	}
}

// Slow strangers take all places. Members that have a session still get through.
func TestSlowStrangers(t *testing.T) {
	keys := clusterKey(t)
	a := newHost(t, nodeIdentity(t, "alpha", keys), func(c *Config) { c.MaxPending = 8; c.HandshakeTimeout = patience })
	var held []net.Conn
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	for range 40 {
		c, err := net.Dial("tcp", a.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	until(t, "strangers turned away", func() bool { return a.Counts().TurnedAway >= 32 })
	if n := runtime.NumGoroutine(); n > 60 {
		t.Errorf("%d goroutines for strangers", n)
	}
	// Dialled by us, a member comes in; then its address has a share of its own.
	b := newHost(t, nodeIdentity(t, "beta", keys))
	b.serve = echo
	a.serve = echo
	a.Meet(b.id.ID(), b.Addr().String())
	b.waitUp(a)
	st, err := b.OpenStream(t.Context(), a.id.ID(), nil)
	if err != nil {
		t.Fatal(err)
	}
	st.Abort(nil)
}

// Members that do not keep to the protocol.
func TestRogueMember(t *testing.T) {
	keys := clusterKey(t)
	me := hello{instance: instance{1}, listen: netip.MustParseAddrPort("127.0.0.1:1")}
	greet := appendFrame([]byte{prefaceControl}, frame{typeHello, me.encode()})
	bad := append([]byte(nil), greet...)
	bad[len(bad)-1] ^= 1
	say := map[string][]byte{
		"no preface":          {99},
		"oversized frame":     {prefaceControl, 0xff, 0xff, 0xff, 0xff, typeHello},
		"wrong checksum":      bad,
		"hello of nonsense":   appendFrame([]byte{prefaceControl}, frame{typeHello, []byte("nonsense")}),
		"no hello":            appendFrame([]byte{prefaceControl}, frame{1, nil}),
		"stream first":        {prefaceStream, kindOpen, 0, 0, 0},
		"nothing":             nil,
		"hello, then silence": greet,
	}
	for name, b := range say {
		t.Run(name, func(t *testing.T) {
			a := newHost(t, nodeIdentity(t, "alpha", keys), func(c *Config) {
				c.HandshakeTimeout = 300 * time.Millisecond
				c.DeadAfter = 300 * time.Millisecond
			})
			c := dialTLS(t, a, nodeIdentity(t, "rogue", keys))
			defer hangUp(c)
			if _, err := c.Write(b); err != nil {
				t.Fatal(err)
			}
			closes(t, c)
			if n := count[Incoming](a) + count[Frame](a); n != 0 {
				t.Errorf("%d events came of it", n)
			}
		})
	}
}

func TestRogueFrames(t *testing.T) {
	keys := clusterKey(t)
	good := appendFrame(nil, frame{1, []byte("x")})
	bad := append([]byte(nil), good...)
	bad[6] ^= 1
	say := map[string][]byte{
		"oversized":   {0x7f, 0xff, 0xff, 0xff, 1},
		"corrupt":     bad,
		"keep again":  appendFrame(nil, frame{typeKeep, encodeKeep(2)}),
		"unknown own": appendFrame(nil, frame{0xfe, nil}),
		"too long":    appendFrame(nil, frame{1, make([]byte, MaxPayload+1)}),
	}
	for name, b := range say {
		t.Run(name, func(t *testing.T) {
			a := newHost(t, nodeIdentity(t, "alpha", keys))
			c := dialMute(t, a, nodeIdentity(t, "rogue", keys))
			defer hangUp(c)
			if _, err := c.Write(append(append([]byte(nil), good...), b...)); err != nil {
				t.Fatal(err)
			}
			find(a, "the good frame", func(f Frame) bool { return string(f.Payload) == "x" })
			find(a, "down", func(d Down) bool { return true })
			closes(t, c)
			until(t, "the count", func() bool { return a.Counts().Malformed == 1 })
		})
	}
}

// A member that is not in a session may not open streams, whoever else is.
func TestStreamNeedsSession(t *testing.T) {
	keys := clusterKey(t)
	a := newHost(t, nodeIdentity(t, "alpha", keys), func(c *Config) { c.HandshakeTimeout = 300 * time.Millisecond })
	b := newHost(t, nodeIdentity(t, "beta", keys))
	a.Meet(b.id.ID(), b.Addr().String())
	a.waitUp(b)
	c := dialTLS(t, a, nodeIdentity(t, "rogue", keys))
	defer hangUp(c)
	if _, err := c.Write([]byte{prefaceStream, kindOpen, 0, 0, 1, 'x'}); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	if kind, _, err := readHead(br); err != nil || kind != kindReject {
		t.Errorf("answered %d, %v", kind, err)
	}
	if n := count[Incoming](a); n != 0 {
		t.Errorf("%d streams were told", n)
	}
	if _, err := b.OpenStream(t.Context(), signature.NodeID{9}, nil); err == nil {
		t.Error("opened a stream to nobody")
	}
}
