package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Limits on what strangers can make the transport hold. memberlist itself takes
// any number of connections and up to 20 MiB from each before it knows the key.
const (
	maxStreams    = 64
	maxFromSource = 16
	maxStream     = 2 << 20 // bytes; some 512 members with their metadata and maxState
	maxPacket     = 4 << 10 // bytes; ours end at 1400
)

var errHungUp = errors.New("gossip is shutting down")

// A link is a memberlist transport that can be told to stop talking.
type link interface {
	memberlist.NodeAwareTransport
	// hangUp ends all streams and dials, and refuses new ones. Packets still go.
	hangUp()
	// advertised is where others reach this node.
	advertised() netip.AddrPort
}

// transport is memberlist's UDP and TCP, with limits, and without a goroutine or
// a connection that outlives Shutdown.
type transport struct {
	log     *slog.Logger
	udp     *net.UDPConn
	tcp     *net.TCPListener
	local   netip.Addr // to dial from; invalid: the kernel chooses
	adv     netip.AddrPort
	allowed func(net.IP) error
	refused *atomic.Uint64

	packets chan *memberlist.Packet
	streams chan net.Conn
	ctx     context.Context
	stop    context.CancelFunc
	talk    context.Context // ends before ctx
	hush    context.CancelFunc
	wg      sync.WaitGroup

	mu   sync.Mutex
	open map[*stream]struct{}
	from map[netip.Addr]int // accepted and open, per source
}

var _ link = (*transport)(nil)

// listen opens the sockets and starts to read them.
func listen(cfg Config, allowed func(net.IP) error, refused *atomic.Uint64) (*transport, error) {
	at, err := parseListen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	t := &transport{
		log:     cfg.Logger,
		allowed: allowed,
		refused: refused,
		packets: make(chan *memberlist.Packet),
		streams: make(chan net.Conn),
		open:    map[*stream]struct{}{},
		from:    map[netip.Addr]int{},
	}
	if err := t.bind(at); err != nil {
		return nil, fmt.Errorf("listen for gossip: %w", err)
	}
	if at.Addr().IsValid() && !at.Addr().IsUnspecified() {
		t.local = at.Addr()
	}
	if t.adv, err = t.advertise(cfg.Advertise); err != nil {
		return nil, errors.Join(err, t.udp.Close(), t.tcp.Close())
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.talk, t.hush = context.WithCancel(t.ctx)
	t.wg.Add(2)
	go t.readPackets()
	go t.accept()
	return t, nil
}

// bind takes one port for both protocols. A port chosen by the kernel for one may
// be taken for the other, so that is tried a few times.
func (t *transport) bind(at netip.AddrPort) error {
	tries := 1
	if at.Port() == 0 {
		tries = 10
	}
	host := ""
	if at.Addr().IsValid() {
		host = at.Addr().String()
	}
	var err error
	for range tries {
		var tcp net.Listener
		if tcp, err = net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(at.Port()))); err != nil {
			return err
		}
		port := tcp.Addr().(*net.TCPAddr).Port
		var udp net.PacketConn
		if udp, err = net.ListenPacket("udp", net.JoinHostPort(host, fmt.Sprint(port))); err == nil {
			t.tcp, t.udp = tcp.(*net.TCPListener), udp.(*net.UDPConn)
			return nil
		}
		if cerr := tcp.Close(); cerr != nil {
			return errors.Join(err, cerr)
		}
	}
	return err
}

func (t *transport) advertise(want string) (netip.AddrPort, error) {
	port := uint16(t.tcp.Addr().(*net.TCPAddr).Port)
	adv, err := parseAdvertise(want)
	switch {
	case err != nil:
		return adv, err
	case adv.IsValid() && adv.Port() != 0:
		return adv, nil
	case adv.Addr().IsValid():
		return netip.AddrPortFrom(adv.Addr(), port), nil
	case t.local.IsValid():
		return netip.AddrPortFrom(t.local, port), nil
	}
	a, err := guessAddr()
	if err != nil {
		return adv, fmt.Errorf("find an address to advertise: %w", err)
	}
	return netip.AddrPortFrom(a, port), nil
}

// guessAddr finds the address by which others are most likely to reach this
// machine: private IPv4 before other IPv4 before IPv6 before loopback.
func guessAddr() (netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, err
	}
	best, rank := netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue // no IP address
		}
		ip, r := p.Addr().Unmap(), 0
		switch {
		case !ip.IsGlobalUnicast():
		case ip.Is4() && ip.IsPrivate():
			r = 3
		case ip.Is4():
			r = 2
		default:
			r = 1
		}
		if r > rank {
			best, rank = ip, r
		}
	}
	return best, nil
}

func (t *transport) advertised() netip.AddrPort { return t.adv }

// FinalAdvertiseAddr is memberlist's question for advertised.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.adv.Addr().AsSlice(), int(t.adv.Port()), nil
}

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *transport) StreamCh() <-chan net.Conn           { return t.streams }

func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	ap, err := t.target(addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.udp.WriteToUDPAddrPort(b, ap)
	return time.Now(), err
}

func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

// target reads an address and refuses one that no member may have.
func (t *transport) target(addr string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return ap, err
	}
	return ap, t.allowed(ap.Addr().Unmap().AsSlice())
}

func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	if _, err := t.target(addr); err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: timeout}
	if t.local.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: t.local.AsSlice()}
	}
	c, err := d.DialContext(t.talk, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return t.keep(c, netip.Addr{})
}

func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

func (t *transport) readPackets() {
	defer t.wg.Done()
	buf := make([]byte, maxPacket)
	for {
		n, from, err := t.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if !t.pause("read gossip", err) {
				return
			}
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if n == 0 || t.allowed(from.Addr().AsSlice()) != nil {
			continue
		}
		p := &memberlist.Packet{
			Buf:       append([]byte(nil), buf[:n]...), // memberlist keeps it
			From:      net.UDPAddrFromAddrPort(from),
			Timestamp: time.Now(),
		}
		// While memberlist is busy the kernel's buffer is the queue; what does not
		// fit into that is lost, as datagrams may be.
		select {
		case t.packets <- p:
		case <-t.ctx.Done():
			return
		}
	}
}

func (t *transport) accept() {
	defer t.wg.Done()
	for {
		c, err := t.tcp.Accept()
		if err != nil {
			if !t.pause("accept gossip", err) {
				return
			}
			continue
		}
		src := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if t.allowed(src.AsSlice()) != nil {
			t.refused.Add(1)
			t.drop(c)
			continue
		}
		s, err := t.keep(c, src)
		if err != nil {
			t.refused.Add(1)
			continue
		}
		select {
		case t.streams <- s:
		case <-t.ctx.Done():
			t.drop(s)
			return
		}
	}
}

func (t *transport) drop(c net.Conn) {
	if err := c.Close(); err != nil {
		t.log.Debug("close stream", "err", err)
	}
}

// pause waits a moment after an error, since the next call may give the same one
// at once, and tells whether to go on.
func (t *transport) pause(doing string, err error) bool {
	if t.ctx.Err() != nil {
		return false
	}
	t.log.Warn(doing, "err", err)
	select {
	case <-time.After(100 * time.Millisecond):
		return true
	case <-t.ctx.Done():
		return false
	}
}

// keep wraps c so that it is counted, limited, and closed with the rest. A valid
// src is that of an accepted one; those have a limit in number.
func (t *transport) keep(c net.Conn, src netip.Addr) (net.Conn, error) {
	s := &stream{Conn: c, t: t, src: src, left: maxStream}
	t.mu.Lock()
	err := t.talk.Err()
	if err != nil {
		err = errHungUp
	} else if src.IsValid() && (len(t.open) >= maxStreams || t.from[src] >= maxFromSource) {
		err = errors.New("too many streams")
	} else {
		t.open[s] = struct{}{}
		if src.IsValid() {
			t.from[src]++
		}
	}
	t.mu.Unlock()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return s, nil
}

func (t *transport) hangUp() {
	t.hush()
	t.mu.Lock()
	open := make([]*stream, 0, len(t.open))
	for s := range t.open {
		open = append(open, s)
	}
	t.mu.Unlock()
	for _, s := range open {
		t.drop(s)
	}
}

// Shutdown closes everything and waits until nothing is read any more.
func (t *transport) Shutdown() error {
	t.stop()
	t.hangUp()
	err := errors.Join(t.udp.Close(), t.tcp.Close())
	t.wg.Wait()
	return err
}

// A stream is a connection of memberlist's that ends after maxStream bytes.
type stream struct {
	net.Conn
	t    *transport
	src  netip.Addr
	left int // read by one goroutine, as memberlist does
	once sync.Once
	err  error
}

func (s *stream) Read(b []byte) (int, error) {
	if s.left <= 0 {
		return 0, fmt.Errorf("%w: stream of more than %d bytes", ErrTooBig, maxStream)
	}
	n, err := s.Conn.Read(b[:min(len(b), s.left)])
	s.left -= n
	return n, err
}

func (s *stream) Close() error {
	s.once.Do(func() {
		t := s.t
		t.mu.Lock()
		delete(t.open, s)
		if s.src.IsValid() {
			if t.from[s.src]--; t.from[s.src] <= 0 {
				delete(t.from, s.src)
			}
		}
		t.mu.Unlock()
		s.err = s.Conn.Close()
	})
	return s.err
}
