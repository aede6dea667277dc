package replica

import (
	"strings"
	"testing"
	"time"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/index"
)

// A cut that would make a node list or know more than a peer takes from it is not
// taken in, and nothing of it is: its peers would break with it.
func TestOverfullCutsAreNotTakenIn(t *testing.T) {
	self := signature.Actor{Node: signature.NodeID{1}, Incarnation: 1}
	rogue := signature.NodeID{9}
	now := time.Unix(1e9, 0)
	version := func(incarnation uint64, xattrs int) signature.Version {
		v := signature.Version{Dot: signature.Dot{Actor: signature.Actor{Node: rogue, Incarnation: incarnation}, Seq: 1}, Stamp: int64(incarnation)}
		v.Sig = signature.Signature{Type: signature.Symlink, Target: strings.Repeat("t", int(incarnation%200)+1)}
		if xattrs > 0 {
			v.Sig.Xattrs = signature.EncodeXattrs([]signature.Xattr{{Name: "user.x", Value: strings.Repeat("x", xattrs)}})
		}
		return v
	}
	// cut lists versions n to m-1, greatest first, and knows their actors.
	cut := func(n, m uint64, xattrs int) CutIn {
		l := signature.Listing{Path: "p"}
		k := signature.Knowledge{}
		for i := m - 1; i >= n; i-- {
			v := version(i, xattrs)
			l.Versions = append(l.Versions, v)
			k[v.Dot.Actor] = 1
		}
		return CutIn{From: rogue, Cut: Cut{Listings: []signature.Listing{l}, Knowledge: k}}
	}
	actors := func(n, m uint64) CutIn {
		k := signature.Knowledge{}
		for i := n; i < m; i++ {
			k[signature.Actor{Node: rogue, Incarnation: i}] = 1
		}
		return CutIn{From: rogue, Cut: Cut{Knowledge: k}}
	}
	tests := []struct {
		name        string
		first, then CutIn
		fits        bool
	}{
		{"few versions", cut(1, 100, 0), cut(100, 200, 0), true},
		{"too many versions", cut(1, 200, 0), cut(200, 300, 0), false},
		{"some attributes", cut(1, 3, 50<<10), cut(3, 5, 50<<10), true},
		{"too many attributes", cut(1, 5, 60<<10), cut(5, 9, 60<<10), false},
		{"few actors", actors(1, 1000), actors(1000, 2000), true},
		{"too many actors", actors(1, 4000), actors(4000, 4200), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ix := index.NewMemory()
			c := New(Config{Self: self}, ix, Start{})
			c.Step(now, PeerUp{ID: rogue})
			if fx := c.Step(now, tt.first); len(fx.Acks) != 1 {
				t.Fatalf("the first cut is refused: %+v", fx.Notices)
			}
			listed, known := len(c.get("p").Listed), len(c.Knowledge())
			fx := c.Step(now, tt.then)
			alarmed := false
			for _, n := range fx.Notices {
				alarmed = alarmed || n.Kind == NoticeAlarm && n.Peer == rogue
			}
			if alarmed == tt.fits || len(fx.Acks) == 1 != tt.fits {
				t.Errorf("acks %v, notices %+v", fx.Acks, fx.Notices)
			}
			if grown := len(c.get("p").Listed) > listed || len(c.Knowledge()) > known; grown != tt.fits {
				t.Errorf("%d versions listed after %d, %d actors known after %d", len(c.get("p").Listed), listed, len(c.Knowledge()), known)
			}
		})
	}
	t.Run("heads", func(t *testing.T) {
		c := New(Config{Self: self}, index.NewMemory(), Start{})
		c.Step(now, PeerUp{ID: rogue})
		for n := range uint64(10) {
			k := actors(n*4000, (n+1)*4000).Cut.Knowledge
			c.Step(now, HeadIn{ID: rogue, Known: k, Landed: k})
		}
		if p := c.peers[rogue]; len(p.known) > 2*signature.MaxActors || len(p.landed) > 2*signature.MaxActors {
			t.Errorf("%d and %d actors are kept of a peer", len(p.known), len(p.landed))
		}
	})
}
