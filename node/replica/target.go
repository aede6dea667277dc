package replica

import "github.com/clsync/clsync/signature"

// A target is what the disk shall show at a path.
type target struct {
	Version signature.Version // none for a folder that no record explains
	Form    signature.Form
	Sig     signature.Signature // bare
}

// targetOf says what is shown first: the greatest version listed; a folder where
// something beneath is alive. The second result is false where nothing is listed
// and nothing implied.
func (c *Core) targetOf(r signature.Record) (target, bool) {
	if c.live[r.Path] == 0 {
		if len(r.Listed) == 0 {
			return target{}, false
		}
		v := r.Listed[0]
		return target{v, signature.Plain, v.Sig.Bare()}, true
	}
	for _, v := range r.Listed {
		if v.Sig.Type == signature.Folder {
			return target{v, signature.Plain, v.Sig.Bare()}, true
		}
	}
	t := target{Form: signature.Implied}
	t.Sig = signature.Signature{Type: signature.Folder, Facts: signature.Facts{Mode: 0o755}}
	if len(r.Listed) > 0 {
		t.Version = r.Listed[0]
	}
	for _, v := range r.Listed {
		if v.Sig.Kept.Set {
			t.Version, t.Sig.Facts = v, v.Sig.Kept.Facts
			break
		}
	}
	return t, true
}

// holds tells whether the record's disk shows the target, in its form.
func holds(r signature.Record, t target) bool {
	return r.Held.Form == t.Form && r.Held.Version.Dot == t.Version.Dot
}

// review works out again whether a path is pending, in conflict, or changed here
// on a receive-only node.
func (c *Core) review(p signature.Path) {
	r := c.get(p)
	c.unpend(p)
	delete(c.local, p)
	if lacks(r) {
		c.lacking[p] = true
	} else {
		delete(c.lacking, p)
	}
	if c.ignored(r) {
		delete(c.conflicts, p)
		c.forget(p)
		return
	}
	if len(distinct(r.Listed)) > 1 {
		if c.conflicts[p] == nil {
			c.conflicts[p] = &conflict{}
		}
	} else {
		delete(c.conflicts, p)
	}
	t, ok := c.targetOf(r)
	if r.Held.Form == signature.Local {
		c.local[p] = true
		if !ok || r.Held.Version.Dot == t.Version.Dot {
			return
		}
	}
	if !ok || holds(r, t) {
		c.forget(p)
		return
	}
	c.pend(p, r, t)
}

// forget forgets why a path could not land.
func (c *Core) forget(p signature.Path) {
	delete(c.retry, p)
	delete(c.noLocal, p)
	delete(c.notHere, p)
}

// A pend is what is asked of a pending path at every step, so that the index need
// not be: it is as of the last review.
type pend struct {
	dot, group signature.Dot
	typ        signature.Type
	hash       signature.Hash
	size       int64
	content    bool // a content is needed that the path does not show
	basis      bool // it shows a file, of which a delta can be made
	same       bool // the disk shows the target already
	source     whether
}

// whether a content stands somewhere on this disk.
type whether uint8

const (
	unknown whether = iota // to be asked of the index
	no
	yes
)

func (c *Core) pend(p signature.Path, r signature.Record, t target) {
	file := r.Shown.Type == signature.File
	d := &pend{dot: t.Version.Dot, group: groupName(t.Version), typ: t.Sig.Type, hash: t.Sig.Hash, size: t.Sig.Size,
		content: t.Sig.Type == signature.File && t.Sig.Size > 0 && !(file && r.Shown.SameContent(t.Sig)),
		basis:   file && r.Shown.Size > 0,
		same:    r.Held.Form != signature.Nothing && r.Held.Form != signature.Local && r.Shown == t.Sig}
	c.pending[p] = d
	if d.content {
		if c.wanted[d.hash] == nil {
			c.wanted[d.hash] = map[signature.Path]bool{}
		}
		c.wanted[d.hash][p] = true
	}
}

func (c *Core) unpend(p signature.Path) {
	d := c.pending[p]
	if d == nil {
		return
	}
	delete(c.pending, p)
	if d.content {
		if delete(c.wanted[d.hash], p); len(c.wanted[d.hash]) == 0 {
			delete(c.wanted, d.hash)
		}
	}
}

// sourceMoved notes that a content has come to a path or gone from one.
func (c *Core) sourceMoved(h signature.Hash) {
	for p := range c.wanted[h] {
		c.pending[p].source = unknown
	}
}

// here tells whether a pending path's content stands elsewhere on this disk.
func (c *Core) here(p signature.Path, d *pend) bool {
	if d.source == unknown {
		d.source = no
		c.ix.ByHash(d.hash, func(q signature.Path) bool {
			r := c.get(q)
			if q != p && r.Shown.Type == signature.File && r.Held.Form == signature.Plain {
				d.source = yes
			}
			return d.source == no
		})
	}
	return d.source == yes && !c.noLocal[p]
}

func (c *Core) ignored(r signature.Record) bool {
	folder := c.live[r.Path] > 0 || r.Shown.Type == signature.Folder
	for _, v := range r.Listed {
		folder = folder || v.Sig.Type == signature.Folder
	}
	return c.cfg.Ignored(r.Path, folder)
}

// lacks tells whether the disk shows a held version without some of its attributes.
func lacks(r signature.Record) bool {
	return r.Held.Form == signature.Plain && r.Shown.Exists() && !r.Held.Version.Dot.IsZero() && r.Shown.Xattrs != r.Held.Version.Sig.Xattrs
}

// landed is the part of knowledge of which everything shown first is held.
func (c *Core) landed() signature.Knowledge {
	k := c.knowledge.Clone()
	for _, d := range c.pending {
		if !d.dot.IsZero() && k[d.dot.Actor] >= d.dot.Seq {
			k[d.dot.Actor] = d.dot.Seq - 1
		}
	}
	return k
}

func (c *Core) rulesChanged() {
	var paths []signature.Path
	c.ix.Ascend("", func(r signature.Record) bool {
		paths = append(paths, r.Path)
		return true
	})
	for _, p := range paths {
		c.review(p)
	}
	c.scan("")
}
