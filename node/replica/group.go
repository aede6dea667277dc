package replica

import (
	"maps"
	"slices"
	"time"

	"github.com/clsync/clsync/signature"
)

// Hard links. A version without a group forms one of its own, named by its own
// dot: so a further link of a file is one version, which names the dot of the
// file's. Two paths are linked if what is shown first at both is of one group and
// has equal facts.

// groupName is the group that a version belongs to.
func groupName(v signature.Version) signature.Dot {
	if !v.Sig.Group.IsZero() {
		return v.Sig.Group
	}
	return v.Dot
}

// sameInode yields the other paths that showed the inode of m at their last look.
func (c *Core) sameInode(p signature.Path, m signature.StatMark, yield func(signature.Record) bool) {
	c.ix.ByInode(m.Dev, m.Ino, func(q signature.Path) bool {
		if q == p {
			return true
		}
		r, ok := c.ix.Get(q)
		if !ok || !r.Shown.Linkable() {
			return true
		}
		return yield(r)
	})
}

// groupOf says which group a name of a file with several links belongs to. A name
// still on the inode of its last look stays where it is, unless another name was
// found there in this very state: two groups on one inode would be links on this
// disk alone. A new name, or one moved to another inode, takes the group of the
// names that were there before it.
func (c *Core) groupOf(r signature.Record, l signature.Look) signature.Dot {
	var group signature.Dot
	stays := r.Held.Form == signature.Plain && r.Shown.Type == l.Sig.Type && r.Mark.Ino == l.Mark.Ino && r.Mark.Dev == l.Mark.Dev
	if stays && !r.Held.Version.Dot.IsZero() {
		group = groupName(r.Held.Version)
	}
	var first signature.Path
	c.sameInode(r.Path, l.Mark, func(q signature.Record) bool {
		if q.Held.Form == signature.Plain && !q.Held.Version.Dot.IsZero() && (first == "" || q.Path < first) &&
			(!stays || q.Mark.CTime == l.Mark.CTime) {
			first, group = q.Path, groupName(q.Held.Version)
		}
		return true
	})
	return group
}

// regrouped tells whether a name whose facts are as shown has joined or left a
// group: it stands on another inode than at its last look, and one of the two has
// or had other names.
func (c *Core) regrouped(r signature.Record, l signature.Look, group signature.Dot) bool {
	if !l.Sig.Linkable() || r.Mark.Ino == l.Mark.Ino && r.Mark.Dev == l.Mark.Dev {
		return false
	}
	held := groupName(r.Held.Version)
	if group.IsZero() {
		return r.Mark.Links > 1 && c.hasMates(r.Path, held)
	}
	return group != held
}

// lookAtLinks asks for looks at the other names of an inode that changed: a write
// through one name gives no event for the others.
func (c *Core) lookAtLinks(p signature.Path, m signature.StatMark) {
	c.sameInode(p, m, func(q signature.Record) bool {
		if q.Mark.CTime != m.CTime {
			c.lookSoon(q.Path)
		}
		return true
	})
}

// leftInode asks for looks at the other names of an inode that p no longer names:
// its ctime has moved, and a mark that does not match serves nobody.
func (c *Core) leftInode(p signature.Path, was, is signature.StatMark) {
	if was.Ino == 0 || was.Ino == is.Ino && was.Dev == is.Dev {
		return
	}
	c.sameInode(p, was, func(q signature.Record) bool {
		c.lookSoon(q.Path)
		return true
	})
}

func (c *Core) lookSoon(p signature.Path) {
	if _, ok := c.dirty[p]; !ok && !c.looking[p] {
		c.dirty[p] = time.Time{}
	}
}

// regroup notes which paths name a group. It is kept for those alone: most files
// have one name.
func (c *Core) regroup(was, is signature.Record) {
	if g := namedGroup(was); !g.IsZero() {
		if delete(c.linked[g], was.Path); len(c.linked[g]) == 0 {
			delete(c.linked, g)
		}
	}
	if g := namedGroup(is); !g.IsZero() {
		if c.linked[g] == nil {
			c.linked[g] = map[signature.Path]bool{}
		}
		c.linked[g][is.Path] = true
	}
}

func namedGroup(r signature.Record) signature.Dot {
	if len(r.Listed) == 0 {
		return signature.Dot{}
	}
	return r.Listed[0].Sig.Group
}

// inGroup yields the paths whose first version is of a group, but p: those that
// name it, in order, and the one whose dot it is.
func (c *Core) inGroup(p signature.Path, group signature.Dot, yield func(signature.Record) bool) {
	members := c.linked[group]
	if len(members) == 0 {
		return // whose dot it is stands alone
	}
	for _, q := range slices.Sorted(maps.Keys(members)) {
		if q != p && !yield(c.get(q)) {
			return
		}
	}
	c.ix.ByDot(group, func(q signature.Path) bool {
		r := c.get(q)
		if q != p && !members[q] && groupName(r.Listed[0]) == group {
			return yield(r)
		}
		return true
	})
}

// mates yields the other paths that shall be linked with what is shown first at p.
func (c *Core) mates(p signature.Path, t target, yield func(signature.Record) bool) {
	c.inGroup(p, groupName(t.Version), func(r signature.Record) bool {
		qt, ok := c.targetOf(r)
		if !ok || qt.Form != signature.Plain || qt.Sig != t.Sig {
			return true
		}
		return yield(r)
	})
}

// hasMates tells whether another path lists that group first.
func (c *Core) hasMates(p signature.Path, group signature.Dot) bool {
	found := false
	c.inGroup(p, group, func(signature.Record) bool {
		found = true
		return false
	})
	return found
}

// linkedRight tells whether what stands at p with mark m has the links that
// the target asks for: those held on one inode with it, and no stranger on it.
func (c *Core) linkedRight(r signature.Record, t target, m signature.StatMark) bool {
	right := true
	mates := map[signature.Path]bool{}
	c.mates(r.Path, t, func(q signature.Record) bool {
		mates[q.Path] = true
		if holdsFirst(c, q) && (q.Mark.Ino != m.Ino || q.Mark.Dev != m.Dev) {
			right = false
		}
		return right
	})
	if !right || m.Links <= 1 {
		return right
	}
	c.sameInode(r.Path, m, func(q signature.Record) bool {
		if !mates[q.Path] {
			if qt, ok := c.targetOf(q); ok && groupName(qt.Version) != groupName(t.Version) {
				right = false
			}
		}
		return right
	})
	return right
}

func holdsFirst(c *Core, r signature.Record) bool {
	t, ok := c.targetOf(r)
	return ok && holds(r, t)
}
