package gossip

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

func TestThreeNodesBySeeds(t *testing.T) {
	a := start(t, config(1))
	cfg := config(2)
	cfg.Seeds = seeds(a)
	b := start(t, cfg)
	cfg = config(3)
	cfg.Seeds = seeds(a)
	c := start(t, cfg)
	for _, r := range []*running{a, b, c} {
		r.until("all are members", r.members(2))
	}
	m := c.Members()[0]
	want := Member{ID: nodeID(1), Name: "node-1", SessionAddr: "127.0.0.2:7001", Version: "v-test"}
	if m != want {
		t.Errorf("member %+v, want %+v", m, want)
	}
	a.until("it was told of b", a.saw(func(ev Event) bool { e, ok := ev.(Alive); return ok && e.Member.ID == nodeID(2) }))

	for i := range 50 {
		if err := a.Announce("web", fmt.Appendf(nil, "head %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	b.until("it has the last head", b.headIs(nodeID(1), "web", "head 49"))
	c.until("it has the last head", c.headIs(nodeID(1), "web", "head 49"))
	if n := a.seen(func(ev Event) bool { _, ok := ev.(Head); return ok }); n != 0 {
		t.Errorf("a was told %d heads, all of them its own", n)
	}

	// Who comes later gets it with the state, though no broadcast is left.
	cfg = config(4)
	cfg.Seeds = seeds(c)
	d := start(t, cfg)
	d.until("it has the last head", d.headIs(nodeID(1), "web", "head 49"))

	began := time.Now()
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("leaving took %v", took)
	}
	left := func(ev Event) bool {
		e, ok := ev.(Gone)
		return ok && e.ID == nodeID(2) && e.Left && e.Name == "node-2"
	}
	a.until("b has left", a.saw(left))
	c.until("b has left", c.saw(left))
}

func TestDeadIsNotLeft(t *testing.T) {
	a := start(t, config(1))
	cfg := config(2)
	cfg.Seeds = seeds(a)
	b := start(t, cfg)
	a.until("b is a member", a.members(1))
	b.line.cut.Store(true)
	a.until("b is gone", a.saw(func(ev Event) bool { e, ok := ev.(Gone); return ok && !e.Left }))
	if n := a.seen(func(ev Event) bool { e, ok := ev.(Gone); return ok && e.Left }); n != 0 {
		t.Errorf("b never left, but a was told so %d times", n)
	}
}

// The seed knows nobody, and forgets the dead after three seconds: so both sides
// must look for the other themselves.
func TestPartitionAndRejoin(t *testing.T) {
	a := start(t, config(1))
	cfg := config(2)
	cfg.Seeds = seeds(a)
	b := start(t, cfg)
	cfg = config(3)
	cfg.Seeds = seeds(a)
	c := start(t, cfg)
	for _, r := range []*running{a, b, c} {
		r.until("all are members", r.members(2))
	}
	c.line.cut.Store(true)
	a.until("c is gone", a.members(1))
	b.until("c is gone", b.members(1))
	c.until("it is alone", c.members(0))
	if err := c.Announce("web", []byte("meanwhile")); err != nil {
		t.Fatal(err)
	}
	if err := a.Announce("web", []byte("here too")); err != nil {
		t.Fatal(err)
	}
	c.line.cut.Store(false)
	for _, r := range []*running{a, b, c} {
		r.until("all are members again", r.members(2))
	}
	a.until("it has c's head", a.headIs(nodeID(3), "web", "meanwhile"))
	c.until("it has a's head", c.headIs(nodeID(1), "web", "here too"))
}

// Without a seed on either side, only memory brings them together again.
func TestRejoinAfterTheDeadAreForgotten(t *testing.T) {
	a := start(t, config(1))
	cfg := config(2)
	b := start(t, cfg)
	if !a.seek.hear(nodeID(2), b.Addr()) {
		t.Fatal("no room for one node")
	}
	a.until("b is a member", a.members(1))
	b.until("a is a member", b.members(1))
	a.line.cut.Store(true)
	a.until("b is gone", a.members(0))
	b.until("a is gone", b.members(0))
	since := time.Now()
	b.until("the dead are forgotten", func() bool { return time.Since(since) > 4*time.Second })
	a.line.cut.Store(false)
	a.until("b is back", a.members(1))
	b.until("a is back", b.members(1))
}

func TestSeedThatIsDownAtStart(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()

	cfg := config(2)
	cfg.Seeds = []string{addr, "no-such-host.invalid:7946"}
	b := start(t, cfg)
	b.until("it has tried in vain", func() bool { return b.Stats().JoinAttempts >= 2 })
	if n := len(b.Members()); n != 0 {
		t.Fatalf("%d members", n)
	}
	cfg = config(1)
	cfg.Listen = addr
	start(t, cfg)
	b.until("the seed is a member", b.members(1))
}

func TestSeedsChangeWhileRunning(t *testing.T) {
	a := start(t, config(1))
	cfg := config(2)
	cfg.Seeds = []string{"127.0.0.250:9"}
	b := start(t, cfg)
	b.until("it has tried in vain", func() bool { return b.Stats().JoinAttempts >= 2 })
	for _, bad := range [][]string{{a.Addr().String(), "host:port"}, make([]string, maxSeeds+1)} {
		if err := b.SetSeeds(bad); !errors.Is(err, ErrConfig) {
			t.Errorf("seeds %.40q: %v", bad, err)
		}
	}
	if err := b.SetSeeds(seeds(a)); err != nil {
		t.Fatal(err)
	}
	b.until("the new seed is a member", b.members(1))
	tried := b.Stats().JoinAttempts
	b.until("it has a head of the seed", func() bool { return a.Announce("t", []byte("x")) == nil && b.headIs(nodeID(1), "t", "x")() })
	if n := b.Stats().JoinAttempts; n > tried+1 {
		t.Errorf("%d attempts though the only seed is a member", n-tried)
	}
}

func TestStrangersStayOut(t *testing.T) {
	a := start(t, config(1))
	for name, change := range map[string]func(*Config){
		"other key":     func(c *Config) { c.Keys = [][]byte{key(9)} },
		"other cluster": func(c *Config) { c.Cluster = "other" },
		"long cluster":  func(c *Config) { c.Cluster = strings.Repeat("long", 50) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(2)
			cfg.Seeds = seeds(a)
			change(&cfg)
			b := start(t, cfg)
			b.until("it has tried", func() bool { return b.Stats().JoinAttempts >= 3 })
			if b.Stats().Joins != 0 || len(b.Members()) != 0 || len(a.Members()) != 0 {
				t.Errorf("joined: %d times, %d members here, %d there", b.Stats().Joins, len(b.Members()), len(a.Members()))
			}
			if err := b.stop(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("address not allowed", func(t *testing.T) {
		cfg := config(1)
		cfg.CIDRs = []string{"127.0.0.0/30"}
		g := start(t, cfg)
		cfg = config(9)
		cfg.Seeds = seeds(g)
		b := start(t, cfg)
		b.until("it was refused", func() bool { return g.Stats().StreamsRefused >= 2 })
		if len(g.Members()) != 0 {
			t.Error("it is a member")
		}
	})

	// Plain text, noise and a half-open stream: the node lives on.
	udp, err := net.Dial("udp", a.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for i := range 2000 {
		b := make([]byte, 1+i%1400)
		if _, err := rand.Read(b); err != nil {
			t.Fatal(err)
		}
		b[0] = byte(i)
		if _, err := udp.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	var held []net.Conn
	for range maxFromSource + 4 {
		tcp, err := net.Dial("tcp", a.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer tcp.Close()
		held = append(held, tcp)
	}
	a.until("it refuses streams beyond the limit", func() bool { return a.Stats().StreamsRefused == 4 })
	for _, c := range held {
		c.Close()
	}
	cfg := config(2)
	cfg.Seeds = seeds(a)
	b := start(t, cfg)
	b.until("it is a member in spite of the noise", b.members(1))
}

func TestKeysChangeWhileRunning(t *testing.T) {
	a := start(t, config(1))
	cfg := config(2)
	cfg.Seeds = seeds(a)
	b := start(t, cfg)
	a.until("b is a member", a.members(1))
	old, next := key(1), key(7)
	n := 0
	for _, step := range [][][]byte{{old, next}, {next, old}, {next}} {
		for _, r := range []*running{a, b} {
			if err := r.SetKeys(step, nil); err != nil {
				t.Fatal(err)
			}
			n++
			head := fmt.Sprint("head ", n)
			if err := a.Announce("web", []byte(head)); err != nil {
				t.Fatal(err)
			}
			b.until("it has "+head, b.headIs(nodeID(1), "web", head))
		}
	}
	if g := a.seen(func(ev Event) bool { _, ok := ev.(Gone); return ok }); g != 0 {
		t.Errorf("lost sight %d times", g)
	}
	cfg = config(3)
	cfg.Seeds = seeds(a)
	c := start(t, cfg)
	c.until("it has tried with the old key", func() bool { return c.Stats().JoinAttempts >= 3 })
	if len(c.Members()) != 0 {
		t.Error("the old key still opens")
	}
	if err := c.SetKeys([][]byte{next}, nil); err != nil {
		t.Fatal(err)
	}
	c.until("it has joined with the new key", c.members(2))
	if err := c.SetKeys([][]byte{next[:16]}, nil); !errors.Is(err, ErrConfig) {
		t.Errorf("short key: %v", err)
	}
}

func TestRingKeepsTheOrderThatWasAsked(t *testing.T) {
	c, err := New(config(1))
	if err != nil {
		t.Fatal(err)
	}
	k := [][]byte{key(1), key(2), key(3), key(4)}
	for _, want := range [][][]byte{
		{k[1], k[0], k[2]},
		{k[2], k[3]},
		{k[0]},
		{k[3], k[2], k[1], k[0]},
		{k[0], k[1]},
	} {
		if err := c.SetKeys(want, nil); err != nil {
			t.Fatal(err)
		}
		got := c.ring.GetKeys()
		if len(got) != len(want) || got[0][0] != want[0][0] {
			t.Errorf("ring %v, want %v", first(got), first(want))
		}
		for _, w := range want {
			if !strings.Contains(string(first(got)), string(w[0])) {
				t.Errorf("ring %v lacks %d", first(got), w[0])
			}
		}
	}
}

func first(keys [][]byte) (b []byte) {
	for _, k := range keys {
		b = append(b, k[0])
	}
	return b
}

func TestCloneIsReported(t *testing.T) {
	a := start(t, config(1))
	cfg := config(2)
	cfg.Seeds = seeds(a)
	b := start(t, cfg)
	a.until("b is a member", a.members(1))
	cfg = config(2)
	cfg.Listen = "127.0.0.77:0"
	cfg.Seeds = seeds(a)
	clone := start(t, cfg)
	foreign := func(ev Event) bool {
		e, ok := ev.(Conflict)
		return ok && !e.Own && e.ID == nodeID(2) && e.Name == "node-2" && e.Addr == clone.Addr().String()
	}
	own := func(ev Event) bool { e, ok := ev.(Conflict); return ok && e.Own && e.ID == nodeID(2) }
	a.until("it reports the clone", a.saw(foreign))
	clone.until("it reports the other", clone.saw(own))
	if len(a.Members()) != 1 || a.Members()[0].ID != b.cfg.ID {
		t.Errorf("members %v: the first holder of the ID stays", a.Members())
	}
}

func TestRestartWithAnEarlierClock(t *testing.T) {
	a := start(t, config(1))
	cfg := config(2)
	cfg.Seeds = seeds(a)
	b := start(t, cfg)
	if err := b.Announce("web", []byte("before")); err != nil {
		t.Fatal(err)
	}
	a.until("it has the head", a.headIs(nodeID(2), "web", "before"))
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	again, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	again.heads.boot = 5
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- again.Run(ctx, make(chan Event)) }()
	if err := again.Announce("web", []byte("after")); err != nil {
		t.Fatal(err)
	}
	a.until("it has the head of the new life", a.headIs(nodeID(2), "web", "after"))
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestAnnounceRefuses(t *testing.T) {
	c, err := New(config(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Announce("", []byte("x")); err == nil {
		t.Error("a tree without a name was announced")
	}
	if err := c.Announce("t", make([]byte, MaxDigest+1)); !errors.Is(err, ErrTooBig) {
		t.Errorf("long head: %v", err)
	}
	if err := c.Announce(strings.Repeat("t", MaxTree+1), nil); !errors.Is(err, ErrTooBig) {
		t.Errorf("long name: %v", err)
	}
	for i := range MaxTrees {
		if err := c.Announce(fmt.Sprintf("tree\xff%d", i), make([]byte, MaxDigest)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Announce("one more", nil); !errors.Is(err, ErrTrees) {
		t.Errorf("tree beyond the limit: %v", err)
	}
	if err := c.Announce("tree\xff0", make([]byte, MaxDigest)); err != nil {
		t.Error(err)
	}
	if s := c.Stats(); s.HeadsAnnounced != MaxTrees {
		t.Errorf("%d heads announced, want %d: the same head again is no news", s.HeadsAnnounced, MaxTrees)
	}
}

func TestRunOnce(t *testing.T) {
	a := start(t, config(1))
	if err := a.Run(context.Background(), nil); err == nil {
		t.Error("a second Run went well")
	}
	cfg := config(1)
	cfg.Listen = a.Addr().String()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run(context.Background(), nil); err == nil || !strings.Contains(err.Error(), "listen for gossip") {
		t.Errorf("a port in use: %v", err)
	}
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no ID":       func(c *Config) { c.ID = nodeID(0) },
		"no name":     func(c *Config) { c.Name = "" },
		"long name":   func(c *Config) { c.Name = strings.Repeat("n", MaxName+1) },
		"no cluster":  func(c *Config) { c.Cluster = "" },
		"no port":     func(c *Config) { c.SessionPort = 0 },
		"listen":      func(c *Config) { c.Listen = "somewhere" },
		"listen name": func(c *Config) { c.Listen = "localhost:1" },
		"advertise":   func(c *Config) { c.Advertise = "host" },
		"seed":        func(c *Config) { c.Seeds = []string{"host:port"} },
		"seeds":       func(c *Config) { c.Seeds = make([]string, maxSeeds+1) },
		"no key":      func(c *Config) { c.Keys = nil },
		"short key":   func(c *Config) { c.Keys = [][]byte{key(1)[:31]} },
		"cidr":        func(c *Config) { c.CIDRs = []string{"10/8"} },
		"timing":      func(c *Config) { c.Timing = 9 },
		"no beacon":   func(c *Config) { c.Multicast.Off = false; c.BeaconKeys = nil },
		"unicast":     func(c *Config) { c.Multicast = MulticastConfig{Group: "10.0.0.1:7372"} },
		"group":       func(c *Config) { c.Multicast = MulticastConfig{Group: "[ff02::1]:7372"} },
		"ttl":         func(c *Config) { c.Multicast = MulticastConfig{TTL: 256} },
	} {
		cfg := config(1)
		change(&cfg)
		if _, err := New(cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, seed := range []string{"host", "host:1", "10.0.0.1", "::1", "[::1]:7", "10.0.0.1:80"} {
		cfg := config(1)
		cfg.Seeds = []string{seed}
		if _, err := New(cfg); err != nil {
			t.Errorf("seed %s: %v", seed, err)
		}
	}
}

func TestIPv6(t *testing.T) {
	cfg := config(1)
	cfg.Listen = "[::1]:0"
	c, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		t.Skipf("needs IPv6 on loopback: %v", err)
	}
	c.Close()
	a := start(t, cfg)
	cfg = config(2)
	cfg.Listen = "[::1]:0"
	cfg.Seeds = seeds(a)
	b := start(t, cfg)
	b.until("a is a member", b.members(1))
	if got := b.Members()[0].SessionAddr; got != "[::1]:7001" {
		t.Errorf("session at %s", got)
	}
	a.until("b is a member", a.members(1))
}
