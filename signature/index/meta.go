package index

import (
	"fmt"
	"math"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/wire"
)

// Meta is what a node keeps of a tree beside the records. Commit writes only those
// fields that have changed.
type Meta struct {
	TreeID    string
	Root      []byte // tells the tree's root folder from another one
	Actor     signature.Actor
	Reserved  uint64 // seqs up to here may have been used
	Knowledge signature.Knowledge
	Peers     map[signature.NodeID]signature.Knowledge // what each has landed
	Extra     []byte                                   // the owner's own, at most MaxExtra
}

// MaxExtra bounds what an owner may keep in Meta.Extra.
const MaxExtra = 16 << 20

// maxName bounds the small fields.
const maxName = 4096

// clone returns a copy that shares nothing with m.
func (m Meta) clone() Meta {
	m.Root = append([]byte(nil), m.Root...)
	m.Extra = append([]byte(nil), m.Extra...)
	m.Knowledge = m.Knowledge.Clone()
	peers := make(map[signature.NodeID]signature.Knowledge, len(m.Peers))
	for id, k := range m.Peers {
		peers[id] = k.Clone()
	}
	m.Peers = peers
	return m
}

// check refuses what could not be read back.
func (m Meta) check() error {
	ks := []signature.Knowledge{m.Knowledge}
	for _, k := range m.Peers {
		ks = append(ks, k)
	}
	for _, k := range ks {
		if len(k) > signature.MaxActors {
			return fmt.Errorf("knowledge of %d actors, at most %d", len(k), signature.MaxActors)
		}
		for a, seq := range k {
			if seq > signature.MaxSeq {
				return fmt.Errorf("knowledge of %v up to %d, at most %d", a, seq, uint64(signature.MaxSeq))
			}
		}
	}
	switch {
	case len(m.TreeID) > maxName || len(m.Root) > maxName:
		return fmt.Errorf("tree ID and root of %d and %d bytes, at most %d", len(m.TreeID), len(m.Root), maxName)
	case len(m.Extra) > MaxExtra:
		return fmt.Errorf("extra of %d bytes, at most %d", len(m.Extra), MaxExtra)
	}
	return nil
}

// The names of the fields. A peer's has its node ID behind it.
const (
	fieldFormat    = "format"
	fieldTree      = "tree"
	fieldRoot      = "root"
	fieldActor     = "actor"
	fieldReserved  = "reserved"
	fieldKnowledge = "knowledge"
	fieldExtra     = "extra"
	fieldProof     = "proof"
	fieldClean     = "clean"
	fieldSum       = "sum"
	fieldPeer      = "peer:"
)

func frame(write func(*wire.Writer)) []byte {
	w := wire.NewWriter()
	write(w)
	return w.Frame()
}

// fields encodes m, each field by itself.
func (m Meta) fields() map[string][]byte {
	f := map[string][]byte{
		fieldTree:      frame(func(w *wire.Writer) { w.String(m.TreeID) }),
		fieldRoot:      frame(func(w *wire.Writer) { w.Bytes(m.Root) }),
		fieldActor:     frame(func(w *wire.Writer) { writeActor(w, m.Actor) }),
		fieldReserved:  frame(func(w *wire.Writer) { w.Uint(m.Reserved) }),
		fieldKnowledge: frame(func(w *wire.Writer) { signature.WriteKnowledge(w, m.Knowledge) }),
		fieldExtra:     frame(func(w *wire.Writer) { w.Bytes(m.Extra) }),
	}
	for id, k := range m.Peers {
		f[fieldPeer+string(id[:])] = frame(func(w *wire.Writer) { signature.WriteKnowledge(w, k) })
	}
	return f
}

// read takes in one field. Fields that are not Meta's are the Store's own.
func (m *Meta) read(name string, b []byte) error {
	r := wire.NewReader(b)
	switch {
	case name == fieldTree:
		m.TreeID = string(r.Bytes(maxName))
	case name == fieldRoot:
		m.Root = r.Bytes(maxName)
	case name == fieldActor:
		m.Actor = readActor(r)
	case name == fieldReserved:
		m.Reserved = r.Uint(math.MaxUint64)
	case name == fieldKnowledge:
		m.Knowledge = signature.ReadKnowledge(r)
	case name == fieldExtra:
		m.Extra = r.Bytes(MaxExtra)
	case isPeer(name):
		m.Peers[signature.NodeID([]byte(name[len(fieldPeer):]))] = signature.ReadKnowledge(r)
	default:
		return nil
	}
	return r.Err()
}

func isPeer(name string) bool {
	return len(name) == len(fieldPeer)+len(signature.NodeID{}) && name[:len(fieldPeer)] == fieldPeer
}

func writeActor(w *wire.Writer, a signature.Actor) {
	w.Array(2)
	w.Bytes(a.Node[:])
	w.Uint(a.Incarnation)
}

func readActor(r *wire.Reader) (a signature.Actor) {
	r.Tuple(2)
	r.Fixed(a.Node[:])
	a.Incarnation = r.Uint(math.MaxUint64)
	return a
}
