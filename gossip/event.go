package gossip

import "github.com/clsync/clsync/signature"

// An Event is one of Alive, Gone, Head, Found and Conflict.
type Event interface{ event() }

// A Member is a node that memberlist believes to be alive.
type Member struct {
	ID          signature.NodeID
	Name        string
	SessionAddr string // where its TLS port should be
	Version     string
}

type (
	// Alive tells of a new member, or of one whose facts have changed.
	Alive struct{ Member Member }

	// Gone tells that a member Alive was told of does not answer, or has left.
	Gone struct {
		ID   signature.NodeID
		Name string
		Left bool // it said goodbye; false if it did and nobody heard
	}

	// Head tells the newest head of a tree of a node, which need not be a member.
	Head struct {
		From   signature.NodeID
		Tree   string
		Digest []byte
	}

	// Found tells where a node that is no member may be dialled.
	Found struct {
		ID   signature.NodeID
		Addr string
	}

	// Conflict tells that a node ID is in use at a second address: a clone.
	Conflict struct {
		ID   signature.NodeID
		Name string
		Addr string // of the second one, as it gossips
		Own  bool   // the ID is ours
	}
)

func (Alive) event()    {}
func (Gone) event()     {}
func (Head) event()     {}
func (Found) event()    {}
func (Conflict) event() {}
