package gossip

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"errors"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/wire"
)

// A datagram is magic, version and the cluster's hash, then a frame, then an
// HMAC-SHA256 of all that. The address to dial is where it came from.
const (
	magic      = "clsb"
	magicForm  = 1
	headerSize = len(magic) + 1 + 8
)

const (
	kindBeacon = 1
	kindHint   = 2
)

var (
	errStranger = errors.New("not a datagram of this cluster")
	errHMAC     = errors.New("datagram signed with another key")
)

// A datagram is what travels by multicast: a beacon says "I am here", a hint a head.
type datagram struct {
	kind        uint64
	node        signature.NodeID
	sessionPort uint16
	gossipPort  uint16
	boot        uint64
	counter     uint64 // grows with every datagram of a boot
	tree        string // these three in hints only
	seq         uint64
	digest      string
}

// A seal signs and checks the datagrams of one cluster.
type seal struct {
	header []byte
	keys   [][]byte
}

func newSeal(cluster string, keys [][]byte) seal {
	h := append([]byte(magic), magicForm)
	sum := sha256.Sum256([]byte("clsync cluster " + cluster))
	s := seal{header: append(h, sum[:8]...)}
	for _, k := range keys {
		s.keys = append(s.keys, bytes.Clone(k))
	}
	return s
}

func (s seal) mac(key, b []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(b)
	return m.Sum(nil)
}

func (s seal) close(d datagram) []byte {
	w := wire.NewWriter()
	if d.kind == kindHint {
		w.Array(9)
	} else {
		w.Array(6)
	}
	w.Uint(d.kind)
	w.Bytes(d.node[:])
	w.Uint(uint64(d.sessionPort))
	w.Uint(uint64(d.gossipPort))
	w.Uint(d.boot)
	w.Uint(d.counter)
	if d.kind == kindHint {
		w.String(d.tree)
		w.Uint(d.seq)
		w.String(d.digest)
	}
	b := append(bytes.Clone(s.header), w.Frame()...)
	return append(b, s.mac(s.keys[0], b)...)
}

// ours tells by the first bytes whether opening b is worth the while.
func (s seal) ours(b []byte) bool {
	return len(b) <= MaxMessage && len(b) > headerSize+sha256.Size && bytes.HasPrefix(b, s.header)
}

// open checks the signature before it reads anything but the header.
func (s seal) open(b []byte) (d datagram, err error) {
	if !s.ours(b) {
		return d, errStranger
	}
	body, mac := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	signed := false
	for _, k := range s.keys {
		if hmac.Equal(s.mac(k, body), mac) {
			signed = true
			break
		}
	}
	if !signed {
		return d, errHMAC
	}
	r := wire.NewReader(body[headerSize:])
	n := r.Array(9)
	d.kind = r.Uint(kindHint)
	if !(d.kind == kindBeacon && n == 6 || d.kind == kindHint && n == 9) {
		r.Fail("datagram of kind %d with %d parts", d.kind, n)
	}
	d.node = readID(r)
	d.sessionPort = readPort(r)
	d.gossipPort = readPort(r)
	d.boot = r.Uint(maxBoot)
	d.counter = r.Uint(maxSeq)
	if d.kind == kindHint {
		d.tree = readTree(r)
		d.seq = r.Uint(maxSeq)
		d.digest = string(r.Bytes(MaxDigest))
	}
	return d, r.Err()
}
