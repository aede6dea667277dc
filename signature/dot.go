package signature

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
)

// A NodeID is a digest of a node's public key.
type NodeID [16]byte

func (id NodeID) String() string               { return hex.EncodeToString(id[:]) }
func (id NodeID) IsZero() bool                 { return id == NodeID{} }
func (id NodeID) Compare(o NodeID) int         { return bytes.Compare(id[:], o[:]) }
func (id NodeID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// ParseNodeID reads what NodeID.String wrote.
func ParseNodeID(s string) (NodeID, error) {
	var id NodeID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("node ID %q: want %d hexadecimal digits", s, 2*len(id))
	}
	copy(id[:], b)
	return id, nil
}

// An Actor is one life of a node. The incarnation is random and fresh whenever
// the index cannot be proven to be continuous, so that no dot is used twice.
type Actor struct {
	Node        NodeID
	Incarnation uint64
}

func (a Actor) Compare(b Actor) int {
	return cmp.Or(a.Node.Compare(b.Node), cmp.Compare(a.Incarnation, b.Incarnation))
}

func (a Actor) String() string { return fmt.Sprintf("%x/%04x", a.Node[:3], a.Incarnation>>48) }

// A Dot names one change. Seq counts per actor and tree, from 1; the zero Dot
// names nothing.
type Dot struct {
	Actor Actor
	Seq   uint64
}

func (d Dot) IsZero() bool { return d == Dot{} }

func (d Dot) Compare(e Dot) int {
	return cmp.Or(d.Actor.Compare(e.Actor), cmp.Compare(d.Seq, e.Seq))
}

func (d Dot) String() string { return fmt.Sprintf("%s:%d", d.Actor, d.Seq) }

// Knowledge says which dots were taken in: every dot of an actor up to its seq is
// listed here or superseded. It is about records, not about the disk.
type Knowledge map[Actor]uint64

// Covers tells whether d was taken in.
func (k Knowledge) Covers(d Dot) bool { return d.Seq <= k[d.Actor] }

// CoversAll tells whether k knows all that o knows.
func (k Knowledge) CoversAll(o Knowledge) bool {
	for a, seq := range o {
		if k[a] < seq {
			return false
		}
	}
	return true
}

// Join raises k to what o knows and tells whether that was anything new.
func (k Knowledge) Join(o Knowledge) bool {
	news := false
	for a, seq := range o {
		if k[a] < seq {
			k[a], news = seq, true
		}
	}
	return news
}

// Clone returns a copy that shares nothing with k.
func (k Knowledge) Clone() Knowledge {
	if k == nil {
		return Knowledge{}
	}
	return maps.Clone(k)
}

// Equal tells whether both know the same.
func (k Knowledge) Equal(o Knowledge) bool { return k.CoversAll(o) && o.CoversAll(k) }

// Actors returns the actors of k in order.
func (k Knowledge) Actors() []Actor {
	return slices.SortedFunc(maps.Keys(k), Actor.Compare)
}
