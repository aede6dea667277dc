package gossip

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// group returns a group with a port that nobody uses now.
func group(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return fmt.Sprintf("239.255.73.71:%d", c.LocalAddr().(*net.UDPAddr).Port)
}

func onLoopback(t *testing.T, b byte, g string) Config {
	t.Helper()
	cfg := config(b)
	cfg.Multicast = MulticastConfig{Group: g, Interfaces: []string{"lo"}}
	return cfg
}

func TestMulticastOnOneMachine(t *testing.T) {
	g := group(t)
	if m, err := openMulticast(MulticastConfig{Group: g}, netip.Addr{}, config(1).Logger); err != nil {
		t.Skipf("needs multicast sockets: %v", err)
	} else if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	a := start(t, onLoopback(t, 1, g))
	b := start(t, onLoopback(t, 2, g))
	cfg := onLoopback(t, 3, g)
	cfg.Seeds = seeds(a) // both ways at once
	c := start(t, cfg)
	for _, r := range []*running{a, b, c} {
		r.until("all are members", r.members(2))
	}
	if err := a.Announce("web", []byte("one")); err != nil {
		t.Fatal(err)
	}
	b.until("it has the head", b.headIs(nodeID(1), "web", "one"))
	b.until("it has the hint", func() bool { return b.Stats().HintsReceived > 0 })

	// With gossip cut off, the hint still comes, and the node is found.
	b.line.cut.Store(true)
	if err := a.Announce("web", []byte("two")); err != nil {
		t.Fatal(err)
	}
	b.until("it has the head by multicast alone", b.headIs(nodeID(1), "web", "two"))
	b.until("the others are gone", b.members(0))
	b.until("it has found a", b.saw(func(ev Event) bool {
		e, ok := ev.(Found)
		return ok && e.ID == nodeID(1) && e.Addr == "127.0.0.2:7001"
	}))
	b.line.cut.Store(false)
	b.until("all are members again", b.members(2))

	// A stranger is heard and not believed.
	cfg = onLoopback(t, 4, g)
	cfg.BeaconKeys = [][]byte{key(66)}
	d := start(t, cfg)
	d.until("it speaks", func() bool { return d.Stats().BeaconsSent > 3 })
	a.until("it counts what it does not believe", func() bool { return a.Stats().BadHMAC > 0 })
	if len(d.Members()) != 0 || len(a.Members()) != 2 {
		t.Error("a node with another beacon key was joined")
	}

	// A flood of what nobody signed: it is counted, and a head still gets through.
	flood, err := openMulticast(a.cfg.Multicast, netip.Addr{}, a.log)
	if err != nil {
		t.Fatal(err)
	}
	defer flood.Close()
	if _, err := flood.refresh(); err != nil {
		t.Fatal(err)
	}
	s := newSeal("test", [][]byte{key(66)})
	for i := range 20_000 {
		if _, err := flood.send(func() []byte { return s.close(beaconOf(7, uint64(i+1))) }); err != nil {
			t.Fatal(err)
		}
	}
	a.until("it opens no more than it may", func() bool { return a.Stats().RateLimited > 0 })
	if err := a.Announce("web", []byte("three")); err != nil {
		t.Fatal(err)
	}
	b.until("it has the head after the flood", b.headIs(nodeID(1), "web", "three"))

	// Given the key, it joins.
	if err := d.SetKeys([][]byte{key(1)}, [][]byte{key(2)}); err != nil {
		t.Fatal(err)
	}
	d.until("it has joined", d.members(3))
}

// Two clones that only multicast could bring together.
func TestCloneIsFoundByMulticast(t *testing.T) {
	g := group(t)
	a := start(t, onLoopback(t, 1, g))
	cfg := onLoopback(t, 1, g)
	cfg.Listen = "127.0.0.99:0"
	b := start(t, cfg)
	own := func(ev Event) bool { e, ok := ev.(Conflict); return ok && e.Own }
	waitFor(t, "one of the clones knows", 15*time.Second, func() bool { return a.seen(own)+b.seen(own) > 0 })
	if a.seen(func(ev Event) bool { _, ok := ev.(Found); return ok }) != 0 {
		t.Error("a node was told that it has found itself")
	}
}

func TestMulticastWithoutInterfaces(t *testing.T) {
	cfg := config(1)
	cfg.Multicast = MulticastConfig{Group: group(t), Interfaces: []string{"none-such"}}
	a := start(t, cfg)
	cfg = config(2)
	cfg.Multicast = MulticastConfig{Group: group(t), Interfaces: []string{"none-such"}}
	cfg.Seeds = seeds(a)
	b := start(t, cfg)
	b.until("seeds are enough", b.members(1))
}

// roleEnv makes this test binary a node, for tests in network namespaces.
const roleEnv = "GOSSIP_TEST_NODE"

// A role is what such a node is to do; it prints its events, one JSON line each.
type role struct {
	Node   byte
	Listen string
	Group  string
}

type report struct {
	Event string
	From  string
	Text  string
	Stats Stats
}

func playRole(arg string) int {
	var r role
	if err := json.Unmarshal([]byte(arg), &r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	cfg := config(r.Node)
	cfg.Listen = r.Listen
	cfg.Multicast = MulticastConfig{Group: r.Group}
	c, err := New(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	events, done := make(chan Event), make(chan error, 1)
	go func() { done <- c.Run(ctx, events) }()
	lines := make(chan string)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			lines <- in.Text()
		}
	}()
	out := json.NewEncoder(os.Stdout)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		rep := report{Stats: c.Stats()}
		select {
		case <-tick.C:
		case ev := <-events:
			rep.Event = fmt.Sprintf("%T", ev)
			switch e := ev.(type) {
			case Alive:
				rep.From, rep.Text = e.Member.Name, e.Member.SessionAddr
			case Head:
				rep.From, rep.Text = e.From.String(), string(e.Digest)
			case Found:
				rep.From, rep.Text = e.ID.String(), e.Addr
			case Gone:
				rep.From, rep.Text = e.Name, fmt.Sprint(e.Left)
			}
		case line, more := <-lines:
			if !more { // the test is done, or dead
				cancel()
				if err := <-done; err != nil {
					fmt.Fprintln(os.Stderr, err)
					return 1
				}
				return 0
			}
			if err := c.Announce("web", []byte(line)); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			continue
		case err := <-done:
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if err := out.Encode(rep); err != nil {
			return 1
		}
	}
}

// TestNamespaces runs three nodes in namespaces on a bridge. They have no seeds.
func TestNamespaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	for _, tool := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
	tag := fmt.Sprintf("cg%d", os.Getpid()%100000)
	hub := tag + "-hub"
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	add := func(ns string) {
		if out, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
			t.Skipf("needs network namespaces: %v: %s", err, out)
		}
		t.Cleanup(func() { // its interfaces go with it
			if out, err := exec.Command("ip", "netns", "del", ns).CombinedOutput(); err != nil {
				t.Errorf("remove namespace: %v: %s", err, out)
			}
		})
		ip("-n", ns, "link", "set", "lo", "up")
	}
	add(hub)
	ip("-n", hub, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
	ip("-n", hub, "link", "set", "br0", "up")

	type peer struct {
		say     func(string)
		reports chan report
	}
	var peers []peer
	for i := byte(1); i <= 3; i++ {
		ns := fmt.Sprintf("%s-%d", tag, i)
		add(ns)
		ip("-n", ns, "link", "add", "eth0", "type", "veth", "peer", "name", fmt.Sprint("p", i), "netns", hub)
		ip("-n", hub, "link", "set", fmt.Sprint("p", i), "master", "br0", "up")
		ip("-n", ns, "addr", "add", fmt.Sprintf("10.73.0.%d/24", i), "dev", "eth0")
		ip("-n", ns, "link", "set", "eth0", "up")

		arg, err := json.Marshal(role{Node: i, Listen: ":7946"})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("nsenter", "--net=/run/netns/"+ns, os.Args[0])
		cmd.Env = append(os.Environ(), roleEnv+"="+string(arg))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		reports := make(chan report, 1000)
		go func() {
			defer close(reports)
			for d := json.NewDecoder(out); ; {
				var r report
				if err := d.Decode(&r); err != nil {
					return
				}
				reports <- r
			}
		}()
		t.Cleanup(func() {
			in.Close()
			for range reports { // until it has ended
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("node %d: %v", i, err)
			}
		})
		peers = append(peers, peer{func(s string) {
			if _, err := fmt.Fprintln(in, s); err != nil {
				t.Error(err)
			}
		}, reports})
	}
	await := func(i int, what string, ok func(report) bool) report {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			select {
			case r, more := <-peers[i].reports:
				if !more {
					t.Fatalf("node %d ended before %s", i+1, what)
				}
				if ok(r) {
					return r
				}
			case <-deadline:
				t.Fatalf("node %d: waited too long until %s", i+1, what)
			}
		}
	}
	for i := range peers {
		known := map[string]string{}
		await(i, "it knows both others", func(r report) bool {
			if r.Event == "gossip.Alive" {
				known[r.From] = r.Text
			}
			return len(known) == 2
		})
		for name, addr := range known {
			if want := fmt.Sprintf("10.73.0.%s:700%s", name[5:], name[5:]); addr != want {
				t.Errorf("%s has its session at %s, want %s", name, addr, want)
			}
		}
	}
	peers[0].say("news")
	for i := 1; i < 3; i++ {
		r := await(i, "it has the head", func(r report) bool { return r.Event == "gossip.Head" && r.Text == "news" })
		r = await(i, "it has heard beacons and hints", func(r report) bool {
			return r.Stats.BeaconsReceived > 1 && r.Stats.HintsReceived > 0
		})
		if r.Stats.BadHMAC+r.Stats.Replayed+r.Stats.BadDatagrams+r.Stats.SendErrors != 0 {
			t.Errorf("node %d: %+v", i+1, r.Stats)
		}
	}
}
