package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// A Network is a switch with one cable to each node, all in namespaces.
type Network struct {
	hub   string // the namespace that the switch is in
	hosts []host
	extra int // bridges beside br0
}

type host struct {
	namespace string
	port      string // the hub's end of its cable
	addr      string
}

// NewNetwork makes a network of n hosts, 10.99.0.1 and so on. Close ends it.
func NewNetwork(n int) (*Network, error) {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	id := "clsync-" + hex.EncodeToString(b[:])
	nw := &Network{hub: id + "-hub"}
	if err := run("", "ip", "netns", "add", nw.hub); err != nil {
		return nil, err
	}
	var hub strings.Builder
	hub.WriteString(newBridge(0))
	for i := range n {
		h := host{fmt.Sprintf("%s-%d", id, i+1), fmt.Sprintf("p%d", i+1), fmt.Sprintf("10.99.0.%d", i+1)}
		nw.hosts = append(nw.hosts, h)
		if err := run("", "ip", "netns", "add", h.namespace); err != nil {
			return nw, err
		}
		fmt.Fprintf(&hub, "link add %s type veth peer name eth0 netns %s\n", h.port, h.namespace)
		fmt.Fprintf(&hub, "link set %s master br0 up\n", h.port)
	}
	if err := nw.batch(nw.hub, hub.String()); err != nil {
		return nw, err
	}
	for _, h := range nw.hosts {
		if err := nw.batch(h.namespace, "link set lo up\naddr add "+h.addr+"/24 dev eth0\nlink set eth0 up\n"); err != nil {
			return nw, err
		}
	}
	return nw, nil
}

// newBridge has no spanning tree and no snooping: both would swallow the first seconds.
func newBridge(i int) string {
	return fmt.Sprintf("link add br%d type bridge forward_delay 0 stp_state 0 mcast_snooping 0\nlink set br%d up\n", i, i)
}

// Addr returns the address of host i.
func (nw *Network) Addr(i int) string { return nw.hosts[i].addr }

// Namespace returns the file that nsenter wants to get to host i.
func (nw *Network) Namespace(i int) string { return "/run/netns/" + nw.hosts[i].namespace }

// Partition plugs each group into a switch of its own. Packets to another group
// vanish without a sign, as behind a broken switch. A host in no group is alone.
func (nw *Network) Partition(groups ...[]int) error {
	of := map[int]int{}
	var b strings.Builder
	for g, hosts := range groups {
		b.WriteString(newBridge(g + 1))
		for _, i := range hosts {
			of[i] = g + 1
		}
	}
	for i, h := range nw.hosts {
		if g, ok := of[i]; ok {
			fmt.Fprintf(&b, "link set %s master br%d\n", h.port, g)
		} else {
			fmt.Fprintf(&b, "link set %s nomaster\n", h.port)
		}
	}
	if err := nw.Heal(); err != nil {
		return err
	}
	nw.extra = len(groups)
	return nw.batch(nw.hub, b.String())
}

// Heal plugs all into one switch again.
func (nw *Network) Heal() error {
	var b strings.Builder
	for _, h := range nw.hosts {
		fmt.Fprintf(&b, "link set %s master br0\nlink set %s up\n", h.port, h.port)
	}
	for ; nw.extra > 0; nw.extra-- {
		fmt.Fprintf(&b, "link del br%d\n", nw.extra)
	}
	return nw.batch(nw.hub, b.String())
}

// Unplug takes host i's link down, which it sees at once.
func (nw *Network) Unplug(i int) error {
	return nw.inside(nw.hub, "", "ip", "link", "set", nw.hosts[i].port, "down")
}

// Do runs f in host i's network: sockets made in f belong there for good.
func (nw *Network) Do(i int, f func() error) error {
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := os.Open(nw.Namespace(i))
		if err != nil {
			errs <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			errs <- fmt.Errorf("enter %s: %w", ns.Name(), err)
			return
		}
		errs <- f()
	}()
	return <-errs
}

// Close removes the namespaces, and with them everything in them.
func (nw *Network) Close() error {
	var first error
	names := []string{nw.hub}
	for _, h := range nw.hosts {
		names = append(names, h.namespace)
	}
	for _, n := range names {
		if err := run("", "ip", "netns", "del", n); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// batch gives many commands to one ip, in a namespace.
func (nw *Network) batch(ns, lines string) error {
	return nw.inside(ns, lines, "ip", "-batch", "-")
}

func (nw *Network) inside(ns, stdin string, args ...string) error {
	return run(stdin, append([]string{"nsenter", "--net=/run/netns/" + ns, "--"}, args...)...)
}

func run(stdin string, args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
