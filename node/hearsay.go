package node

import (
	"fmt"
	"time"

	"github.com/clsync/clsync/node/replica"
	"github.com/clsync/clsync/signature"
)

// hearsayWait is how long a cut rests that knows more of a connected node than that
// node has said itself, before it is reported.
const hearsayWait = 30 * time.Second

// A heldCut is whole, but rests until the nodes of whose changes it tells have said
// as much themselves, or are gone. What a node tells of itself comes to all at once,
// so this hardly ever waits; but one false word about the changes that another node
// will make would have us take them for superseded when they come.
type heldCut struct {
	*cutIn
	known    signature.Knowledge
	since    time.Time
	reported bool
}

func (h *heldCut) event(from signature.NodeID) replica.Event {
	return replica.CutIn{From: from, Cut: replica.Cut{Listings: h.listings, Knowledge: h.known}}
}

// hearsay names a connected node of which k knows more than it has said itself, and
// more than we know. What it says of itself, from tells first hand.
func (t *tree) hearsay(from signature.NodeID, k signature.Knowledge) (signature.NodeID, bool) {
	ours := t.core.Knowledge()
	for a, seq := range k {
		if a.Node == from || a.Node == t.node.id || seq <= ours[a] {
			continue
		}
		if s := t.sessions[a.Node]; s != nil && s.open && !s.rogue && seq > s.known[a] {
			return a.Node, true
		}
	}
	return signature.NodeID{}, false
}

// confirmed returns the cuts that need not rest any longer.
func (t *tree) confirmed(now time.Time) (evs []replica.Event) {
	for id, s := range t.sessions {
		if s.held == nil || s.rogue {
			continue
		}
		about, rests := t.hearsay(id, s.held.known)
		switch {
		case !rests:
			s.acks = s.held.id
			evs = append(evs, s.held.event(id))
			s.held = nil
		case !s.held.reported && now.Sub(s.held.since) > hearsayWait:
			s.held.reported = true
			t.node.distrust(id, fmt.Errorf("tree %s: it knows changes of %s that %s has not told of: one of them lies, or was restored or cloned",
				t.name, t.node.peerName(about), t.node.peerName(about)))
		}
	}
	return evs
}
