package gossip

import (
	"errors"
	"fmt"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/wire"
)

// Bounds of what is sent and taken.
const (
	MaxName    = 128  // bytes of a node's name
	MaxTree    = 255  // bytes of a tree's name
	MaxDigest  = 64   // bytes of a head
	MaxMessage = 1300 // bytes; memberlist silently never sends what exceeds about 1360
	MaxTrees   = 256  // that one node may announce
	MaxMembers = 512

	maxVersion = 64
	maxSeeds   = 64
	maxKeys    = 8
	maxHeads   = 4096
	maxState   = 256 << 10 // bytes of the state two nodes exchange
	maxBoot    = 1 << 62
	maxSeq     = 1 << 62
)

// ErrTooBig is returned for a head that gossip does not carry, ErrTrees for a
// tree beyond MaxTrees.
var (
	ErrTooBig = errors.New("too big for gossip")
	ErrTrees  = errors.New("too many trees for gossip")
)

// The kinds of message inside memberlist. Each is a tuple that begins with its kind.
const (
	kindHead  = 1
	kindLeave = 2
)

// formState is the version of the state's and the metadata's form.
const formState = 1

// A head is one node's word about one tree. Of two, the one with the greater
// (boot, seq) is the newer.
type head struct {
	node   signature.NodeID
	boot   uint64 // grows from one start of the node to the next
	seq    uint64
	tree   string
	digest string
}

func (h head) newer(o head) bool {
	return h.boot > o.boot || h.boot == o.boot && h.seq > o.seq
}

func (h head) write(w *wire.Writer) {
	w.Bytes(h.node[:])
	w.Uint(h.boot)
	w.Uint(h.seq)
	w.String(h.tree)
	w.String(h.digest)
}

func readHead(r *wire.Reader) (h head) {
	h.node = readID(r)
	h.boot = r.Uint(maxBoot)
	h.seq = r.Uint(maxSeq)
	h.tree = readTree(r)
	h.digest = string(r.Bytes(MaxDigest))
	return h
}

func readID(r *wire.Reader) (id signature.NodeID) {
	r.Fixed(id[:])
	if r.Err() == nil && id.IsZero() {
		r.Fail("node ID of zeros")
	}
	return id
}

func readTree(r *wire.Reader) string {
	t := string(r.Bytes(MaxTree))
	if r.Err() == nil && t == "" {
		r.Fail("tree without a name")
	}
	return t
}

func (h head) encode() ([]byte, error) {
	w := wire.NewWriter()
	w.Array(6)
	w.Uint(kindHead)
	h.write(w)
	b := w.Frame()
	if len(b) > MaxMessage || len(h.tree) > MaxTree || len(h.digest) > MaxDigest {
		return nil, fmt.Errorf("%w: head of %d bytes, tree name of %d, message of %d", ErrTooBig, len(h.digest), len(h.tree), len(b))
	}
	return b, nil
}

// A farewell says that a node is about to leave: memberlist does not tell its
// delegates whether one has left or has died.
type farewell struct{ node signature.NodeID }

func (f farewell) encode() []byte {
	w := wire.NewWriter()
	w.Array(2)
	w.Uint(kindLeave)
	w.Bytes(f.node[:])
	return w.Frame()
}

// decodeMessage reads what came through memberlist: a head or a farewell.
func decodeMessage(b []byte) (h head, f farewell, kind uint64, err error) {
	if len(b) > MaxMessage {
		return h, f, 0, fmt.Errorf("%w: message of %d bytes", ErrTooBig, len(b))
	}
	r := wire.NewReader(b)
	n := r.Array(6)
	kind = r.Uint(kindLeave)
	switch {
	case kind == kindHead && n == 6:
		h = readHead(r)
	case kind == kindLeave && n == 2:
		f.node = readID(r)
	default:
		r.Fail("message of kind %d with %d parts", kind, n)
	}
	return h, f, kind, r.Err()
}

// encodeState writes as many of the heads as may travel. The first are the most
// important.
func encodeState(hs []head) []byte {
	const each = 16 + 9 + 9 + 2 + 2 + 3 // what a head takes beside its strings, and more
	n, size := 0, 16
	for ; n < len(hs); n++ {
		if size += each + len(hs[n].tree) + len(hs[n].digest); size > maxState {
			break
		}
	}
	w := wire.NewWriter()
	w.Array(2)
	w.Uint(formState)
	w.Array(5 * n)
	for _, h := range hs[:n] {
		h.write(w)
	}
	return w.Frame()
}

func decodeState(b []byte) ([]head, error) {
	if len(b) > maxState {
		return nil, fmt.Errorf("%w: state of %d bytes", ErrTooBig, len(b))
	}
	r := wire.NewReader(b)
	r.Tuple(2)
	if form := r.Uint(255); r.Err() == nil && form != formState {
		r.Fail("state of form %d", form)
	}
	n := r.Array(5 * maxHeads)
	if n%5 != 0 {
		r.Fail("state of %d parts", n)
	}
	hs := make([]head, 0, min(n/5, 64))
	for range n / 5 {
		h := readHead(r)
		if r.Err() != nil {
			return nil, r.Err()
		}
		hs = append(hs, h)
	}
	return hs, r.Err()
}

// A meta is what memberlist carries with every member.
type meta struct {
	id      signature.NodeID
	port    uint16
	name    string
	version string
}

func (m meta) encode() []byte {
	w := wire.NewWriter()
	w.Array(5)
	w.Uint(formState)
	w.Bytes(m.id[:])
	w.Uint(uint64(m.port))
	w.String(m.name)
	w.String(m.version)
	return w.Frame()
}

func decodeMeta(b []byte) (m meta, err error) {
	r := wire.NewReader(b)
	r.Tuple(5)
	if form := r.Uint(255); r.Err() == nil && form != formState {
		r.Fail("metadata of form %d", form)
	}
	m.id = readID(r)
	m.port = readPort(r)
	m.name = string(r.Bytes(MaxName))
	m.version = string(r.Bytes(maxVersion))
	return m, r.Err()
}

func readPort(r *wire.Reader) uint16 {
	p := r.Uint(65535)
	if r.Err() == nil && p == 0 {
		r.Fail("port 0")
	}
	return uint16(p)
}
