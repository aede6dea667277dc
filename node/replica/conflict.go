package replica

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/clsync/clsync/signature"
)

// A conflict is a path with more than one listed version. All nodes show the same
// one first at once; one of them, elected, stores the contents of the others and
// then mints the verdict, a version that replaces all it lists.
type conflict struct {
	since   time.Time
	noticed bool
	have    map[signature.Hash]bool // stood in this node's conflict store; false: it did not
	storing bool
	fetch   FetchItem // of a loser's content
	retry   time.Time
}

// verdictWait lets a burst of writes to one path end before it is judged.
const verdictWait = 100 * time.Millisecond

func (c *Core) settleConflicts(now time.Time, fx *Effects, wake *wakeup) {
	if len(c.conflicts) == 0 {
		return
	}
	for _, p := range slices.Sorted(maps.Keys(c.conflicts)) {
		k := c.conflicts[p]
		r := c.get(p)
		if !k.noticed {
			k.noticed, k.since = true, now
			c.count.Conflicts++
			fx.Notices = append(fx.Notices, Notice{Kind: NoticeConflict, Path: p, Text: fmt.Sprintf("%d versions", len(distinct(r.Listed)))})
		}
		if due := k.since.Add(verdictWait); due.After(now) {
			wake.by(due)
			continue
		}
		if c.pending[p] != nil || c.applying[p] || k.storing || !c.elected(r) {
			continue
		}
		c.settle(now, p, r, k, fx, wake)
	}
}

// elected tells whether this node is the one to decide: the lowest that can be
// reached and holds one of the versions.
func (c *Core) elected(r signature.Record) bool {
	if c.cfg.ReceiveOnly {
		return false
	}
	for id, p := range c.peers {
		if id.Compare(c.cfg.Self.Node) >= 0 || p.receiveOnly {
			continue
		}
		for _, v := range r.Listed {
			if p.landed.Covers(v.Dot) {
				return false
			}
		}
	}
	return true
}

// settle brings the losers' contents into the conflict store, one after the other,
// and then decides.
func (c *Core) settle(now time.Time, p signature.Path, r signature.Record, k *conflict, fx *Effects, wake *wakeup) {
	t, ok := c.targetOf(r)
	if !ok {
		return
	}
	k.fetch = FetchItem{}
	for _, v := range distinct(r.Listed) {
		if v.Dot == t.Version.Dot && t.Form == signature.Plain || v.Sig.SameContent(r.Shown) || k.have[v.Sig.Hash] {
			continue
		}
		switch v.Sig.Type {
		case signature.Symlink:
			if key := linkKey(v); !k.have[key] {
				k.storing = true
				fx.Store = append(fx.Store, StoreTask{Path: p, Version: v})
				return
			}
			continue
		case signature.File:
		default:
			continue // a folder, a tombstone or a special file is all in its record
		}
		if s, ok := c.staged[p]; ok && s.hash == v.Sig.Hash {
			k.storing = true
			fx.Store = append(fx.Store, StoreTask{Path: p, Version: v, Staged: s.Staged})
			return
		}
		if _, asked := k.have[v.Sig.Hash]; !asked {
			k.storing = true
			fx.Store = append(fx.Store, StoreTask{Path: p, Version: v})
			return
		}
		k.fetch = FetchItem{Path: p, Dot: v.Dot, Hash: v.Sig.Hash, Size: v.Sig.Size}
		if k.retry.After(now) {
			wake.by(k.retry)
		}
		return // planFetch asks for it
	}
	c.verdict(p, r, t, fx)
}

// linkKey names a symlink's target as a content.
func linkKey(v signature.Version) signature.Hash {
	return signature.Hash{Sum: sha256.Sum256([]byte(v.Sig.Target))}
}

// verdict replaces all that is listed by what is shown. It carries the stamp of
// the version it chose: with a stamp of its own it could show a content that an
// edit it met had already replaced.
func (c *Core) verdict(p signature.Path, r signature.Record, t target, fx *Effects) {
	chosen := t.Version
	if t.Form == signature.Implied {
		chosen.Sig = t.Sig
	}
	v := signature.Version{Sig: chosen.Sig, Stamp: chosen.Stamp, Case: caseOf(r.Listed)}
	if v.Sig.Type != signature.Folder && !v.Sig.Kept.Set {
		for _, w := range r.Listed {
			if w.Sig.Kept.Set {
				v.Sig.Kept = w.Sig.Kept
				break
			}
			if w.Sig.Type == signature.Folder {
				v.Sig.Kept = signature.Kept{Set: true, Facts: w.Sig.Facts}
				break
			}
		}
	}
	if v.Sig.Linkable() {
		v.Sig.Group = groupName(chosen) // whoever links with what was chosen means this
	}
	c.seq++
	v.Dot = signature.Dot{Actor: c.cfg.Self, Seq: c.seq}
	c.knowledge[c.cfg.Self] = c.seq
	n := len(distinct(r.Listed))
	r.Listed = []signature.Version{v}
	r.Held = signature.Held{Version: v, Form: signature.Plain}
	c.put(r)
	c.count.VersionsMade++
	c.count.Verdicts++
	c.headsDue, fx.Save = true, true
	fx.Notices = append(fx.Notices, Notice{Kind: NoticeVerdict, Path: p, Text: fmt.Sprintf(
		"kept the newest of %d versions, %s of %s; the others are in the conflict store", n, v.Sig.Type,
		time.Unix(0, v.Stamp).UTC().Format(time.RFC3339Nano))})
}

// caseOf names a decision: the digest of the dots it is about.
func caseOf(listed []signature.Version) (id signature.Case) {
	dots := make([]signature.Dot, 0, len(listed))
	for _, v := range listed {
		dots = append(dots, v.Dot)
	}
	slices.SortFunc(dots, signature.Dot.Compare)
	h := sha256.New()
	for _, d := range dots {
		h.Write(d.Actor.Node[:])
		h.Write(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, d.Actor.Incarnation), d.Seq))
	}
	copy(id[:], h.Sum(nil))
	return id
}

// stored takes in that a loser's content stands in the conflict store, or could
// not be put there.
func (c *Core) stored(now time.Time, ev Stored) {
	k := c.conflicts[ev.Task.Path]
	if !ev.Task.Asks() {
		c.dropStaged(ev.Task.Path)
	}
	if k == nil {
		return
	}
	k.storing = false
	if ev.Task.Asks() {
		k.note(ev.Task.Version.Sig.Hash, ev.OK)
		return
	}
	if !ev.OK {
		k.retry = now.Add(5 * time.Second)
		k.since = k.retry // settle again then
		return
	}
	if ev.Task.Version.Sig.Type == signature.Symlink {
		k.note(linkKey(ev.Task.Version), true)
	} else {
		k.note(ev.Task.Version.Sig.Hash, true)
	}
}

func (k *conflict) note(h signature.Hash, have bool) {
	if k.have == nil {
		k.have = map[signature.Hash]bool{}
	}
	k.have[h] = have
}

// kept notes that an apply put a displaced content into the conflict store.
func (c *Core) kept(p signature.Path, v signature.Version) {
	if k := c.conflicts[p]; k != nil {
		if v.Sig.Type == signature.Symlink {
			k.note(linkKey(v), true)
		} else {
			k.note(v.Sig.Hash, true)
		}
	}
}
