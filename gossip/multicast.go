package gossip

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// maxInterfaces is what Linux lets one socket join by default
// (net.ipv4.igmp_max_memberships).
const maxInterfaces = 20

// multicast is a medium of IPv4 multicast.
type multicast struct {
	conn   *ipv4.PacketConn
	group  netip.AddrPort
	names  []string   // of interfaces; empty: all that are suitable
	src    netip.Addr // to send from; invalid: the interface's own
	log    *slog.Logger
	joined map[int]string // interface by index
	active []int          // those that are up; the speaking goroutine's own, like joined
}

// openMulticast opens the socket. It is bound to the group, so that nothing but
// what was sent to the group arrives, and several nodes of one machine share it.
func openMulticast(cfg MulticastConfig, src netip.Addr, log *slog.Logger) (*multicast, error) {
	group, err := cfg.group()
	if err != nil {
		return nil, err
	}
	m := &multicast{group: group, names: cfg.Interfaces, log: log, joined: map[int]string{}}
	if src.Is4() {
		// Peers dial the address a beacon came from: that must be where we listen.
		m.src = src
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "multicast")
	if err := prepare(fd, group); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	c, err := net.FilePacketConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	m.conn = ipv4.NewPacketConn(c)
	// Looped back, as several nodes may run on this machine; ours are ignored.
	if err := errors.Join(m.conn.SetMulticastTTL(max(cfg.TTL, 1)), m.conn.SetMulticastLoopback(true)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return m, nil
}

func prepare(fd int, group netip.AddrPort) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("share port", err)
	}
	// Else what any other socket of this machine has joined would arrive here too,
	// from interfaces that were not asked for.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0); err != nil {
		return os.NewSyscallError("own groups only", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(group.Port()), Addr: group.Addr().As4()}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	return nil
}

func (m *multicast) Close() error { return m.conn.Close() }

func (m *multicast) recv(b []byte) (int, netip.Addr, error) {
	n, _, src, err := m.conn.ReadFrom(b)
	if err != nil {
		return 0, netip.Addr{}, err
	}
	u, ok := src.(*net.UDPAddr)
	if !ok {
		return 0, netip.Addr{}, fmt.Errorf("datagram from %v", src)
	}
	return n, u.AddrPort().Addr().Unmap(), nil
}

func (m *multicast) send(next func() []byte) (int, error) {
	dst := net.UDPAddrFromAddrPort(m.group)
	sent := 0
	var errs error
	for _, index := range m.active {
		cm := &ipv4.ControlMessage{IfIndex: index}
		if m.src.IsValid() {
			cm.Src = m.src.AsSlice()
		}
		if _, err := m.conn.WriteTo(next(), cm, dst); err != nil {
			errs = errors.Join(errs, fmt.Errorf("%s: %w", m.joined[index], err))
			continue
		}
		sent++
	}
	return sent, errs
}

// refresh joins the group on interfaces that have come. What has gone needs no
// leaving: the kernel forgets it.
func (m *multicast) refresh() (bool, error) {
	all, err := net.Interfaces()
	if err != nil {
		return false, err
	}
	fresh := false
	was := m.active
	m.active = nil
	here := map[int]bool{}
	var errs error
	for i := range all {
		ifi := &all[i]
		here[ifi.Index] = true
		if !m.wanted(ifi) {
			continue
		}
		if _, ok := m.joined[ifi.Index]; !ok {
			if len(m.joined) >= maxInterfaces {
				errs = errors.Join(errs, fmt.Errorf("%s: more than %d interfaces: name those that count", ifi.Name, maxInterfaces))
				continue
			}
			err := m.conn.JoinGroup(ifi, net.UDPAddrFromAddrPort(m.group))
			if err != nil && !errors.Is(err, unix.EADDRINUSE) { // in use: joined already
				errs = errors.Join(errs, fmt.Errorf("%s: %w", ifi.Name, err))
				continue
			}
			m.log.Debug("multicast joined", "interface", ifi.Name)
		}
		m.joined[ifi.Index] = ifi.Name
		m.active = append(m.active, ifi.Index)
		fresh = fresh || !slices.Contains(was, ifi.Index)
	}
	for index := range m.joined {
		if !here[index] {
			delete(m.joined, index)
		}
	}
	return fresh, errs
}

func (m *multicast) wanted(ifi *net.Interface) bool {
	if ifi.Flags&net.FlagUp == 0 {
		return false
	}
	if len(m.names) > 0 {
		return slices.Contains(m.names, ifi.Name)
	}
	if ifi.Flags&net.FlagMulticast == 0 || ifi.Flags&net.FlagLoopback != 0 {
		return false
	}
	// The host's ends of its containers' interfaces are many and have no address.
	addrs, err := ifi.Addrs()
	if err != nil {
		m.log.Debug("interface addresses", "interface", ifi.Name, "err", err)
		return false
	}
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Unmap().Is4()
	})
}
