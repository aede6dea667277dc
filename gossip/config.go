package gossip

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/clsync/clsync/signature"
)

// DefaultGroup is the multicast group and port of beacons and head hints.
const DefaultGroup = "239.255.73.70:7372"

// KeySize is the length of every gossip and beacon key.
const KeySize = 32

// ErrConfig is returned by New for a Config that cannot work.
var ErrConfig = errors.New("gossip configuration")

// Config says who this node is and where it looks for others.
type Config struct {
	ID          signature.NodeID
	Name        string // for people; at most MaxName bytes
	Cluster     string // nodes of another cluster are not heard
	SessionPort int    // the TLS port others should dial, on the address of Listen
	Listen      string // address:port for memberlist, UDP and TCP; an empty address is all of them
	Advertise   string // address or address:port others reach Listen at, where it cannot be guessed
	Seeds       []string
	Keys        [][]byte // gossip keys; the first encrypts, all are accepted
	BeaconKeys  [][]byte // the first signs datagrams, all are accepted
	CIDRs       []string // where members may be; empty is everywhere
	Multicast   MulticastConfig
	Timing      Timing
	Version     string // of the program; shown by Members
	Logger      *slog.Logger
}

// MulticastConfig says where beacons are sent and heard.
type MulticastConfig struct {
	Group      string   // IPv4 group and port; empty is DefaultGroup
	Interfaces []string // empty: all that are up, can multicast, have an IPv4 address and are not loopback
	TTL        int      // 0 is 1: the link and no further
	Off        bool
}

// Timing is a set of intervals that fit one another.
type Timing uint8

const (
	LAN  Timing = iota // servers on one network
	Fast               // several nodes on one machine, for tests and demonstrations
)

// A pace is what a Timing stands for.
type pace struct {
	list        func() *memberlist.Config
	retryMin    time.Duration // back-off of a join that failed
	retryMax    time.Duration
	check       time.Duration   // how soon a seed that was lost is noticed
	leave       time.Duration   // the longest that saying goodbye may take
	beacons     []time.Duration // after the start or a change of interfaces
	beaconEvery time.Duration   // from then on
	rescan      time.Duration   // of the interfaces
	reconflict  time.Duration   // before the same conflict is reported again
}

func (t Timing) pace() pace {
	p := pace{
		list:        lanList,
		retryMin:    500 * time.Millisecond,
		retryMax:    30 * time.Second,
		check:       2 * time.Second,
		leave:       1500 * time.Millisecond,
		beacons:     []time.Duration{200 * time.Millisecond, 300 * time.Millisecond, 500 * time.Millisecond},
		beaconEvery: 5 * time.Second,
		rescan:      10 * time.Second,
		reconflict:  time.Minute,
	}
	if t == Fast {
		p.list = fastList
		p.retryMin, p.retryMax, p.check = 50*time.Millisecond, 500*time.Millisecond, 100*time.Millisecond
		p.leave = time.Second
		p.beacons = []time.Duration{20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond}
		p.beaconEvery, p.rescan, p.reconflict = 500*time.Millisecond, time.Second, time.Second
	}
	return p
}

func lanList() *memberlist.Config {
	m := memberlist.DefaultLANConfig()
	m.TCPTimeout = 5 * time.Second
	// A node that died and comes back with another address would otherwise be
	// refused as a conflict until the dead one is forgotten.
	m.DeadNodeReclaimTime = 10 * time.Second
	return m
}

func fastList() *memberlist.Config {
	m := memberlist.DefaultLocalConfig()
	m.ProbeInterval, m.ProbeTimeout = 200*time.Millisecond, 100*time.Millisecond
	m.SuspicionMult, m.SuspicionMaxTimeoutMult = 4, 2
	m.GossipInterval, m.PushPullInterval = 20*time.Millisecond, time.Second
	m.GossipToTheDeadTime = 3 * time.Second
	m.DeadNodeReclaimTime = 500 * time.Millisecond
	return m
}

// Validate tells what is wrong with c.
func (c Config) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, args...))
	}
	switch {
	case c.ID.IsZero():
		return bad("no node ID")
	case c.Cluster == "":
		return bad("no cluster name")
	case c.Name == "" || len(c.Name) > MaxName:
		return bad("name of %d bytes", len(c.Name))
	case len(c.Version) > maxVersion:
		return bad("version of %d bytes", len(c.Version))
	case c.SessionPort < 1 || c.SessionPort > 65535:
		return bad("session port %d", c.SessionPort)
	case c.Timing > Fast:
		return bad("timing %d", c.Timing)
	}
	if _, err := parseListen(c.Listen); err != nil {
		return bad("listen: %v", err)
	}
	if _, err := parseAdvertise(c.Advertise); err != nil {
		return bad("advertise: %v", err)
	}
	if err := checkSeeds(c.Seeds); err != nil {
		return err
	}
	if err := checkKeys("gossip", c.Keys); err != nil {
		return err
	}
	if _, err := memberlist.ParseCIDRs(c.CIDRs); err != nil {
		return bad("%v", err)
	}
	if c.Multicast.Off {
		return nil
	}
	if _, err := c.Multicast.group(); err != nil {
		return bad("multicast group: %v", err)
	}
	if c.Multicast.TTL < 0 || c.Multicast.TTL > 255 {
		return bad("multicast TTL %d", c.Multicast.TTL)
	}
	return checkKeys("beacon", c.BeaconKeys)
}

func checkKeys(what string, keys [][]byte) error {
	if len(keys) == 0 || len(keys) > maxKeys {
		return fmt.Errorf("%w: %d %s keys, want 1 to %d", ErrConfig, len(keys), what, maxKeys)
	}
	for i, k := range keys {
		if len(k) != KeySize {
			return fmt.Errorf("%w: %s key %d has %d bytes, want %d", ErrConfig, what, i, len(k), KeySize)
		}
	}
	return nil
}

func (m MulticastConfig) group() (netip.AddrPort, error) {
	s := m.Group
	if s == "" {
		s = DefaultGroup
	}
	g, err := netip.ParseAddrPort(s)
	if err != nil {
		return g, err
	}
	if !g.Addr().Is4() || !g.Addr().IsMulticast() || g.Port() == 0 {
		return g, fmt.Errorf("%s is no IPv4 group and port", s)
	}
	return g, nil
}

// parseListen reads address:port. The address may be empty, then it is invalid in
// the result and stands for all.
func parseListen(s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port %q", port)
	}
	if host == "" {
		return netip.AddrPortFrom(netip.Addr{}, uint16(n)), nil
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}

// parseAdvertise reads "", address, or address:port.
func parseAdvertise(s string) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPort{}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a.Unmap(), 0), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return ap, err
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// splitSeed reads host or host:port.
func splitSeed(s string, port uint16) (string, uint16, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.String(), port, nil
	}
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		host, p, err = net.SplitHostPort(net.JoinHostPort(s, strconv.Itoa(int(port))))
	}
	if err != nil || host == "" {
		return "", 0, fmt.Errorf("want host or host:port")
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("port %q", p)
	}
	return host, uint16(n), nil
}

// label is bound into memberlist's encryption and stands in front of every packet.
func (c Config) label() string {
	if len(c.Cluster) <= 57 {
		return "clsync:" + c.Cluster
	}
	sum := sha256.Sum256([]byte(c.Cluster))
	return "clsync:" + hex.EncodeToString(sum[:24])
}
