package replica

import (
	"fmt"
	"slices"

	"github.com/clsync/clsync/signature"
)

// cutIn takes in a whole cut: its listings and, with them, its knowledge.
func (c *Core) cutIn(ev CutIn, fx *Effects) {
	c.count.CutsTaken++
	c.count.RecordsReceived += uint64(len(ev.Cut.Listings))
	alarm := c.contradicts(ev.Cut)
	if alarm == nil {
		alarm = c.overfull(ev.Cut)
	}
	if alarm != nil {
		alarm.Peer = ev.From
		fx.Notices = append(fx.Notices, *alarm)
		return
	}
	for _, l := range ev.Cut.Listings {
		c.mergeListing(l, ev.Cut.Knowledge)
	}
	news := c.knowledge.Join(ev.Cut.Knowledge)
	if p := c.peers[ev.From]; p != nil {
		p.known.Join(ev.Cut.Knowledge)
	}
	fx.Acks = append(fx.Acks, ev.From)
	if news {
		c.headsDue, fx.Save = true, true
	}
}

// maxListing bounds what is listed for a path, by weight. A page that ends with the
// greatest, and one version made here on top of it, still fits into a frame.
const maxListing = 384 << 10

// Weight is about what the versions of a path take in memory, and never less than
// what they take on the wire.
func Weight(vs []signature.Version) int {
	n := 0
	for _, v := range vs {
		n += 384 + len(v.Sig.Xattrs) + len(v.Sig.Kept.Xattrs) + len(v.Sig.Target)
	}
	return n
}

// overfull looks for what would make this node list or know more than it could tell
// its peers: they would take it for the one that breaks the protocol.
func (c *Core) overfull(cut Cut) *Notice {
	actors := len(c.knowledge)
	for a := range cut.Knowledge {
		if _, known := c.knowledge[a]; !known {
			actors++
		}
	}
	if actors > signature.MaxActors {
		return &Notice{Kind: NoticeAlarm, Text: fmt.Sprintf(
			"peer would make this node know %d actors, of %d that can be; nothing of it is taken in", actors, signature.MaxActors)}
	}
	for _, l := range cut.Listings {
		r := c.get(l.Path)
		listed, _ := c.merged(r, l, cut.Knowledge)
		if len(listed) > 1 && (len(listed) > signature.MaxVersions || Weight(listed) > maxListing) {
			return &Notice{Kind: NoticeAlarm, Path: l.Path, Text: fmt.Sprintf(
				"peer would make this node list %d versions of %d bytes; nothing of it is taken in", len(listed), Weight(listed))}
		}
	}
	return nil
}

// contradicts looks for what no correct node sends: one dot with two signatures,
// or changes of ours that we never made.
func (c *Core) contradicts(cut Cut) *Notice {
	if seq := cut.Knowledge[c.cfg.Self]; seq > c.seq {
		return &Notice{Kind: NoticeAlarm, Text: fmt.Sprintf(
			"peer knows change %d of this node, which has made %d: its index was restored or copied; nothing of the peer is taken in", seq, c.seq)}
	}
	for _, l := range cut.Listings {
		r := c.get(l.Path)
		for _, v := range l.Versions {
			if !cut.Knowledge.Covers(v.Dot) {
				return &Notice{Kind: NoticeAlarm, Path: l.Path, Text: fmt.Sprintf("peer lists %v and does not know it", v.Dot)}
			}
			if w, ok := r.List(v.Dot); ok && w != v {
				return &Notice{Kind: NoticeAlarm, Path: l.Path, Text: fmt.Sprintf("two versions are named %v: a cloned or restored node", v.Dot)}
			}
		}
	}
	return nil
}

// mergeListing merges one path: a version stays if both list it, or if the side
// that lacks it does not know it.
func (c *Core) mergeListing(l signature.Listing, theirs signature.Knowledge) {
	r := c.get(l.Path)
	listed, news := c.merged(r, l, theirs)
	if !news && len(listed) == len(r.Listed) {
		return
	}
	if news {
		c.count.RecordsApplied++
	}
	r.Listed = listed
	c.put(r)
}

// merged is what is listed for a path once l is taken in, and whether l brings
// anything new.
func (c *Core) merged(r signature.Record, l signature.Listing, theirs signature.Knowledge) (listed []signature.Version, news bool) {
	listed = make([]signature.Version, 0, len(r.Listed)+len(l.Versions))
	for _, v := range r.Listed {
		if !theirs.Covers(v.Dot) || slices.ContainsFunc(l.Versions, func(w signature.Version) bool { return w.Dot == v.Dot }) {
			listed = append(listed, v)
		}
	}
	for _, v := range l.Versions {
		if _, both := r.List(v.Dot); !both && !c.knowledge.Covers(v.Dot) {
			listed, news = append(listed, v), true
		}
	}
	if !news && len(listed) == len(r.Listed) {
		return r.Listed, false
	}
	signature.SortVersions(listed)
	return listed, news
}

// distinct leaves out a version where a greater one says the same: what is left, if
// more than one, is a conflict. It is a function of the listed versions alone, so
// that all nodes judge alike. What is left out stays listed until a version replaces
// it: were it dropped, then what it had replaced would stay where the greater one is
// known already, because no cut would name the path again.
func distinct(listed []signature.Version) []signature.Version {
	if len(listed) < 2 {
		return listed
	}
	kept := make([]signature.Version, 0, len(listed))
	for _, v := range listed {
		if !slices.ContainsFunc(kept, func(w signature.Version) bool { return says(w, v) }) {
			kept = append(kept, v)
		}
	}
	return kept
}

// says tells whether w, the greater, makes v needless: equal contents, and no
// folder facts kept by v alone.
func says(w, v signature.Version) bool {
	return w.Sig.SameContent(v.Sig) && (!v.Sig.Kept.Set || v.Sig.Kept == w.Sig.Kept)
}
