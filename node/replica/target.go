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
	if c.pending[p] {
		c.unpend(p)
	}
	delete(c.local, p)
	if lacks(r) {
		c.lacking[p] = true
	} else {
		delete(c.lacking, p)
	}
	if c.ignored(r) {
		delete(c.conflicts, p)
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
	if ok && r.Held.Form == signature.Nothing && t.Sig.Type == signature.Absent && !r.Shown.Exists() {
		// Nothing was ever here, and nothing shall be: held without a look.
		r.Held = signature.Held{Version: t.Version, Form: t.Form}
		c.ix.Put(r)
	}
	if !ok || holds(r, t) {
		delete(c.retry, p)
		delete(c.noLocal, p)
		delete(c.notHere, p)
		return
	}
	c.pending[p] = true
	if t.Sig.Type == signature.File {
		c.wanted[t.Sig.Hash]++
		c.wantHash[p] = t.Sig.Hash
	}
}

func (c *Core) unpend(p signature.Path) {
	delete(c.pending, p)
	if h, ok := c.wantHash[p]; ok {
		delete(c.wantHash, p)
		if c.wanted[h]--; c.wanted[h] == 0 {
			delete(c.wanted, h)
		}
	}
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
	for p := range c.pending {
		r := c.get(p)
		if t, ok := c.targetOf(r); ok && !t.Version.Dot.IsZero() {
			if d := t.Version.Dot; k[d.Actor] >= d.Seq {
				k[d.Actor] = d.Seq - 1
			}
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
