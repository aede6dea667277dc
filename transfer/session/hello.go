package session

import (
	"crypto/rand"
	"fmt"
	"math"
	"net/netip"

	"github.com/clsync/clsync/signature/wire"
)

const protocolVersion = 1

// An instance is one life of a Hub.
type instance [16]byte

func newInstance() (i instance, err error) {
	if _, err := rand.Read(i[:]); err != nil {
		return i, fmt.Errorf("draw an instance: %w", err)
	}
	return i, nil
}

// A term names a session: the lower node's instance, and the number it gave.
type term struct {
	decider instance
	number  uint64
}

// covers tells whether t is the same session as o or a later one of the same decider.
func (t term) covers(o term) bool { return t.decider == o.decider && t.number >= o.number }

// A hello is what both sides say first.
type hello struct {
	instance instance
	listen   netip.AddrPort // the address unspecified: the one seen
	ended    term           // the last session with this peer that the sender saw end
	payload  []byte
}

func (h hello) encode() []byte {
	w := wire.NewWriter()
	w.Array(6)
	w.Uint(protocolVersion)
	w.Bytes(h.instance[:])
	w.String(h.listen.String())
	w.Bytes(h.ended.decider[:])
	w.Uint(h.ended.number)
	w.Bytes(h.payload)
	return w.Frame()
}

func decodeHello(b []byte) (h hello, err error) {
	r := wire.NewReader(b)
	r.Tuple(6)
	if v := r.Uint(math.MaxUint64); r.Err() == nil && v != protocolVersion {
		return h, fmt.Errorf("%w: peer speaks version %d, we %d", ErrFrame, v, protocolVersion)
	}
	r.Fixed(h.instance[:])
	listen := string(r.Bytes(80))
	r.Fixed(h.ended.decider[:])
	h.ended.number = r.Uint(math.MaxUint64)
	h.payload = r.Bytes(MaxPayload)
	if err := r.Err(); err != nil {
		return hello{}, fmt.Errorf("%w: hello: %w", ErrFrame, err)
	}
	if h.listen, err = netip.ParseAddrPort(listen); err != nil || h.listen.Port() == 0 {
		return hello{}, fmt.Errorf("%w: hello: listens at %q", ErrFrame, listen)
	}
	return h, nil
}

// reach returns where a peer that said h is to be dialled, given the address it
// was seen from. Who listens on one address only may be seen from another.
func (h hello) reach(seen netip.Addr) netip.AddrPort {
	said := h.listen.Addr().Unmap()
	if said.IsUnspecified() || said.IsLoopback() && !seen.IsLoopback() {
		return netip.AddrPortFrom(seen, h.listen.Port())
	}
	return netip.AddrPortFrom(said, h.listen.Port())
}

func encodeKeep(number uint64) []byte {
	w := wire.NewWriter()
	w.Array(1)
	w.Uint(number)
	return w.Frame()
}

func decodeKeep(b []byte) (uint64, error) {
	r := wire.NewReader(b)
	r.Tuple(1)
	n := r.Uint(math.MaxUint64)
	if err := r.Err(); err != nil {
		return 0, fmt.Errorf("%w: keep: %w", ErrFrame, err)
	}
	return n, nil
}

// A decline says why a connection is not kept. A duplicate is no fault: another
// connection between the two is alive.
type decline struct {
	duplicate bool
	reason    string
}

func (d decline) encode() []byte {
	w := wire.NewWriter()
	w.Array(2)
	w.Bool(d.duplicate)
	w.String(cut(d.reason))
	return w.Frame()
}

func decodeDecline(b []byte) (d decline, err error) {
	r := wire.NewReader(b)
	r.Tuple(2)
	d.duplicate = r.Bool()
	d.reason = string(r.Bytes(MaxReason))
	if err := r.Err(); err != nil {
		return decline{}, fmt.Errorf("%w: decline: %w", ErrFrame, err)
	}
	return d, nil
}

func cut(reason string) string { return reason[:min(len(reason), MaxReason)] }
