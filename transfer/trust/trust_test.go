package trust

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/clsync/clsync/signature"
)

func key(t testing.TB) []byte {
	t.Helper()
	k, err := GenerateClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func keys(t testing.TB, raw ...[]byte) Keys {
	t.Helper()
	k, err := NewKeys(raw...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func identity(t testing.TB, cluster, name string, k Keys) *Identity {
	t.Helper()
	node, err := GenerateNodeKey()
	if err != nil {
		t.Fatal(err)
	}
	id, err := NewIdentity(cluster, name, node, k)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// shake connects two configurations and returns what each side found: the state
// of its connection, or why it refused.
func shake(t testing.TB, server, client *tls.Config) (s, c tls.ConnectionState, serr, cerr error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := ln.Accept()
		if err != nil {
			serr = err
			return
		}
		conn := tls.Server(raw, server)
		defer func() { _ = conn.Close() }()
		serr = conn.HandshakeContext(ctx)
		s = conn.ConnectionState()
	}()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(raw, client)
	defer func() { _ = conn.Close() }()
	if cerr = conn.HandshakeContext(ctx); cerr == nil {
		// In TLS 1.3 the client learns of a refusal at its first read only.
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		var alert *net.OpError
		if _, err := conn.Read(make([]byte, 1)); errors.As(err, &alert) && alert.Op == "remote error" {
			cerr = err
		}
	}
	c = conn.ConnectionState()
	<-done
	return s, c, serr, cerr
}

func TestRotation(t *testing.T) {
	old, next, third := key(t), key(t), key(t)
	sets := map[string][][]byte{
		"old":       {old},
		"old,new":   {old, next},
		"new,old":   {next, old},
		"new":       {next},
		"third,new": {third, next},
	}
	shares := func(a, b [][]byte) bool {
		for _, x := range a {
			for _, y := range b {
				if bytes.Equal(x, y) {
					return true
				}
			}
		}
		return false
	}
	for sname, sk := range sets {
		for cname, ck := range sets {
			a := identity(t, "prod", "alpha", keys(t, sk...))
			b := identity(t, "prod", "beta", keys(t, ck...))
			s, c, serr, cerr := shake(t, a.TLSServer(), b.TLSClient(a.ID()))
			if !shares(sk, ck) {
				if serr == nil || !errors.Is(cerr, ErrStranger) {
					t.Errorf("[%s] met [%s], which shares no key: server %v, client %v", sname, cname, serr, cerr)
				}
				continue
			}
			if serr != nil || cerr != nil {
				t.Errorf("[%s] and [%s]: server %v, client %v", sname, cname, serr, cerr)
				continue
			}
			if id, name, err := PeerOf(s); err != nil || id != b.ID() || name != "beta" {
				t.Errorf("server met %s %q, %v", id, name, err)
			}
			if id, name, err := PeerOf(c); err != nil || id != a.ID() || name != "alpha" {
				t.Errorf("client met %s %q, %v", id, name, err)
			}
		}
	}
}

func TestClusterNameIsBound(t *testing.T) {
	k := keys(t, key(t))
	a, b := identity(t, "prod", "alpha", k), identity(t, "test", "beta", k)
	if _, _, serr, cerr := shake(t, a.TLSServer(), b.TLSClient(signature.NodeID{})); serr == nil || !errors.Is(cerr, ErrStranger) {
		t.Fatalf("another cluster with the same key: server %v, client %v", serr, cerr)
	}
	if bytes.Equal(k.Gossip("prod")[0], k.Gossip("test")[0]) || bytes.Equal(k.Gossip("prod")[0], k.Beacon("prod")[0]) {
		t.Fatal("two uses have one key")
	}
	if !bytes.Equal(k.Gossip("prod")[0], keys(t, k.keys[0]).Gossip("prod")[0]) {
		t.Fatal("derivation is not a function of key and name")
	}
}

// A client that trusts whatever it meets must still be refused by the server.
func TestServerRefusesStrangers(t *testing.T) {
	k := keys(t, key(t))
	a := identity(t, "prod", "alpha", k)
	stranger := identity(t, "prod", "beta", keys(t, key(t)))
	cert := stranger.state.Load().authorities[0].own
	good := identity(t, "prod", "gamma", k).state.Load().authorities[0].own
	clients := map[string]*tls.Config{
		"other authority": {Certificates: []tls.Certificate{cert}},
		"no certificate":  {},
		"no protocol":     {Certificates: []tls.Certificate{good}, NextProtos: []string{}},
		"other protocol":  {Certificates: []tls.Certificate{good}, NextProtos: []string{"h2"}},
		"TLS 1.2":         {Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS12},
		"the authority itself": {Certificates: []tls.Certificate{{
			Certificate: [][]byte{a.state.Load().authorities[0].cert.Raw},
			PrivateKey:  a.state.Load().authorities[0].key,
		}}},
		"a chain": {Certificates: []tls.Certificate{{
			Certificate: [][]byte{good.Certificate[0], cert.Certificate[0]}, PrivateKey: good.PrivateKey,
		}}},
		"good": {Certificates: []tls.Certificate{good}},
	}
	for name, cfg := range clients {
		cfg.InsecureSkipVerify = true
		if cfg.NextProtos == nil {
			cfg.NextProtos = []string{ALPN}
		}
		_, _, serr, _ := shake(t, a.TLSServer(), cfg)
		if (serr == nil) != (name == "good") {
			t.Errorf("%s: %v", name, serr)
		}
	}
}

func TestExpectedNode(t *testing.T) {
	k := keys(t, key(t))
	a, b, c := identity(t, "prod", "alpha", k), identity(t, "prod", "beta", k), identity(t, "prod", "gamma", k)
	if _, _, _, err := shake(t, a.TLSServer(), b.TLSClient(c.ID())); !errors.Is(err, ErrOtherNode) {
		t.Fatalf("expected gamma, met alpha: %v", err)
	}
}

func TestReloadIsFollowed(t *testing.T) {
	old, next := key(t), key(t)
	a, b := identity(t, "prod", "alpha", keys(t, old)), identity(t, "prod", "beta", keys(t, old))
	server := a.TLSServer()
	s, _, serr, cerr := shake(t, server, b.TLSClient(a.ID()))
	if serr != nil || cerr != nil {
		t.Fatal(serr, cerr)
	}
	gen := a.Generation()
	if err := a.Reload(keys(t, next)); err != nil {
		t.Fatal(err)
	}
	if a.Generation() == gen {
		t.Error("the generation did not move")
	}
	if err := a.Verify(s); !errors.Is(err, ErrStranger) {
		t.Errorf("a connection by the old key is still good: %v", err)
	}
	if _, _, serr, _ := shake(t, server, b.TLSClient(a.ID())); serr == nil {
		t.Error("the old key still opens new connections")
	}
	if err := b.Reload(keys(t, old, next)); err != nil {
		t.Fatal(err)
	}
	if _, _, serr, cerr := shake(t, server, b.TLSClient(a.ID())); serr != nil || cerr != nil {
		t.Errorf("after both have the new key: %v, %v", serr, cerr)
	}
	if err := a.Reload(Keys{}); err == nil {
		t.Error("reloaded no key at all")
	}
}

func TestSameAuthorityEverywhere(t *testing.T) {
	k := keys(t, key(t))
	a, b := identity(t, "prod", "alpha", k), identity(t, "prod", "beta", k)
	if !bytes.Equal(a.state.Load().authorities[0].cert.Raw, b.state.Load().authorities[0].cert.Raw) {
		t.Fatal("two nodes made two authorities of one key")
	}
}

func TestIdentityIsAFunctionOfItsKey(t *testing.T) {
	node := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	id, err := NodeIDOf(node.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	// Pinned: a changed digest would make every node a stranger to its peers.
	if want := "324be2dea8bc4446"; !strings.HasPrefix(id.String(), want) {
		t.Errorf("node ID %s, want %s...", id, want)
	}
}

func TestNames(t *testing.T) {
	k := keys(t, key(t))
	for _, name := range []string{"a", "web-1", "web_1.example.com", "9", "10.0.0.1", "a..b", "a.", "A-", strings.Repeat("x", MaxName)} {
		a := identity(t, "prod", name, k)
		b := identity(t, "prod", "beta", k)
		if _, _, serr, cerr := shake(t, a.TLSServer(), b.TLSClient(a.ID())); serr != nil || cerr != nil {
			t.Errorf("node %q: %v, %v", name, serr, cerr)
		}
	}
	for _, name := range []string{"", "-a", ".a", "a b", "a/b", "a\n", "ä", "a\x00", strings.Repeat("x", MaxName+1)} {
		if err := CheckName(name); !errors.Is(err, ErrName) {
			t.Errorf("%q is a name: %v", name, err)
		}
	}
}

func BenchmarkHandshake(b *testing.B) {
	k := keys(b, key(b))
	x, y := identity(b, "prod", "alpha", k), identity(b, "prod", "beta", k)
	server := x.TLSServer()
	for b.Loop() {
		if _, _, serr, cerr := shake(b, server, y.TLSClient(x.ID())); serr != nil || cerr != nil {
			b.Fatal(serr, cerr)
		}
	}
}
