package replica

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/clsync/clsync/signature"
)

// hinted notes what to look at. A deep hint also asks for a scan.
func (c *Core) hinted(now time.Time, ev Hinted) {
	for _, p := range ev.Paths {
		if p != "" {
			c.soil(p, now.Add(c.cfg.Delay))
		}
		if ev.Deep {
			c.scan(p)
		}
	}
}

// scan asks for a scan beneath p, unless one that covers it is already asked for.
func (c *Core) scan(p signature.Path) {
	for _, q := range c.scans {
		if q == "" || q == p || p.In(q) {
			return
		}
	}
	c.scans = slices.DeleteFunc(c.scans, func(q signature.Path) bool { return p == "" || q.In(p) })
	c.scans = append(c.scans, p)
}

// soil notes that p is to be looked at, no earlier than at. A path that keeps
// changing is looked at less and less often.
func (c *Core) soil(p signature.Path, at time.Time) {
	if h, ok := c.hot[p]; ok {
		if cool := h.last.Add(h.delay); cool.After(at) {
			at = cool
		}
		h.hits++
		c.hot[p] = h
	}
	if old, ok := c.dirty[p]; !ok || at.Before(old) {
		c.dirty[p] = at
	}
}

// Backlog is how many paths wait for a look: a scan pauses while it is long.
func (c *Core) Backlog() int { return len(c.dirty) + len(c.looking) }

// scannedFolder compares a folder's names with what is remembered of them.
func (c *Core) scannedFolder(now time.Time, ev Scanned) {
	seen := make(map[signature.Path]bool, len(ev.Entries))
	for _, e := range ev.Entries {
		seen[e.Path] = true
		r, ok := c.ix.Get(e.Path)
		if !ok || r.Held.Form == signature.Nothing || !r.Mark.Settled() || !r.Mark.Same(e.Mark) {
			c.soil(e.Path, now)
		}
	}
	c.ix.Children(ev.Folder, func(r signature.Record) bool {
		if !seen[r.Path] && r.Shown.Exists() {
			c.soil(r.Path, now)
		}
		return true
	})
}

// planLooks hands out looks that are due: what changed, and after it the folders
// that hold it, the deepest first, so that a batch makes one version of a folder.
func (c *Core) planLooks(now time.Time, fx *Effects, wake *wakeup) {
	if len(c.looking) < looksOpen {
		batch := make([]signature.Path, 0, min(len(c.dirty), lookBatch))
		for p, at := range c.dirty {
			if at.After(now) {
				wake.by(at)
				continue
			}
			if !c.looking[p] && !c.applying[p] {
				batch = append(batch, p)
			}
		}
		slices.Sort(batch)
		if len(batch) > lookBatch {
			batch = batch[:lookBatch]
			wake.by(now)
		}
		parents := map[signature.Path]bool{}
		for _, p := range batch {
			delete(c.dirty, p)
			for q, ok := p.Parent(); ok; q, ok = q.Parent() {
				parents[q] = true
				if r := c.get(q); heldFolder(r) {
					break
				}
			}
		}
		for _, p := range batch {
			delete(parents, p)
		}
		batch = append(batch, slices.Collect(maps.Keys(parents))...)
		c.askLooks(now, batch, false, fx)
	}
	c.planGone(now, fx, wake)
}

// planGone looks once more at what was absent, once it has rested and nothing is
// left that could tell where it went: fsnotify tells of the two names of a rename
// one after the other.
func (c *Core) planGone(now time.Time, fx *Effects, wake *wakeup) {
	var batch []signature.Path
	for p, since := range c.gone {
		due := since.Add(c.goneFor())
		switch {
		case c.looking[p] || c.applying[p]:
		case !due.After(now):
			batch = append(batch, p)
		default:
			wake.by(due)
		}
	}
	if len(batch) == 0 {
		return
	}
	for _, p := range batch {
		delete(c.gone, p)
		delete(c.dirty, p)
	}
	with := map[signature.Path]bool{}
	for _, p := range batch {
		with[p] = true
		if q, ok := p.Parent(); ok && !c.looking[q] {
			with[q] = true
		}
	}
	c.askLooks(now, slices.Collect(maps.Keys(with)), true, fx)
}

// goneFor says how long what vanished rests: for a moment, if no look or scan is
// under way that could show it under its new name; a little longer under a steady
// load, which always has some; and until it is over while a folder is gone through.
func (c *Core) goneFor() time.Duration {
	switch {
	case c.scanned > 0 || len(c.scans) > 0 || c.Backlog() > goneCrowd:
		return goneWait
	case len(c.looking) > 0:
		return 10 * goneRest
	}
	return goneRest
}

func (c *Core) askLooks(now time.Time, batch []signature.Path, final bool, fx *Effects) {
	// Deepest first puts every folder behind what is in it.
	slices.SortFunc(batch, func(a, b signature.Path) int {
		return cmp.Or(cmp.Compare(strings.Count(string(b), "/"), strings.Count(string(a), "/")), cmp.Compare(a, b))
	})
	for _, p := range batch {
		if c.applying[p] {
			c.dirty[p] = time.Time{}
			continue
		}
		r := c.get(p)
		if c.ignored(r) {
			c.forget(p)
			delete(c.moving, p)
			continue
		}
		c.gen++
		c.looking[p] = true
		task := LookTask{Path: p, Shown: r.Shown, Mark: r.Mark, Final: final, gen: c.gen}
		if since, ok := c.moving[p]; ok {
			task.Moving = now.Sub(since)
		}
		fx.Looks = append(fx.Looks, task)
	}
	c.count.Looks += uint64(len(batch))
}

func heldFolder(r signature.Record) bool {
	return r.Held.Form != signature.Nothing && r.Shown.Type == signature.Folder
}

// looked takes in what looks found: what exists before what is gone, and a folder
// only together with its own folder.
func (c *Core) looked(now time.Time, ev Looked, fx *Effects) {
	seen := make(map[signature.Path]signature.Look, len(ev.Looks))
	for _, s := range ev.Looks {
		delete(c.looking, s.Task.Path)
		seen[s.Task.Path] = s.Look
	}
	var gone []Seen
	for _, s := range ev.Looks {
		p, l := s.Task.Path, s.Look
		switch {
		case c.applying[p] || c.touched[p] > s.Task.gen:
			c.dirty[p] = time.Time{} // overtaken by our own hand
		case s.Later > 0:
			c.stillMoves(now, p, s.Later)
		case l.Err != nil:
			c.lookFailed(now, p, Blocked, "cannot be read", l.Err, 0)
		case l.Unchanged:
			c.lookWorked(p)
		case l.Sig.Type == signature.Absent:
			gone = append(gone, s)
		default:
			c.found(now, s, seen, fx)
		}
	}
	for _, s := range gone {
		c.vanished(now, s, fx)
	}
	if len(c.looking) == 0 {
		clear(c.touched)
	}
}

// Restless is how long a path may move before a moment of it is as good as any.
const Restless = 5 * time.Second

// stillMoves notes that a look did not find a path at rest.
func (c *Core) stillMoves(now time.Time, p signature.Path, wait time.Duration) {
	since, ok := c.moving[p]
	if !ok {
		since = now
		c.moving[p] = since
	}
	c.lookFailed(now, p, Busy, "still being written", nil, wait)
	if due := since.Add(Restless); due.After(now) {
		c.soil(p, due)
	}
}

// found takes in something that stands at a path.
func (c *Core) found(now time.Time, s Seen, seen map[signature.Path]signature.Look, fx *Effects) {
	p, l := s.Task.Path, s.Look
	delete(c.gone, p)
	c.lookWorked(p)
	r := c.get(p)
	if c.recognised(&r, l, fx) {
		return
	}
	if q, ok := p.Parent(); ok && !c.cfg.ReceiveOnly {
		if pr := c.get(q); !heldFolder(pr) && seen[q].Sig.Type != signature.Folder {
			// A new folder is minted with its first child. If ours vanished
			// meanwhile, the next look at both will say so.
			c.soil(p, now.Add(signature.Tick))
			c.soil(q, now.Add(signature.Tick))
			return
		}
	}
	sig := l.Sig
	if l.Sig.Linkable() && l.Mark.Links > 1 {
		sig.Group = c.groupOf(r, l)
		c.lookAtLinks(p, l.Mark)
	}
	if c.sameAsShown(r, l) && !c.regrouped(r, l, sig.Group) {
		c.leftInode(p, r.Mark, l.Mark)
		r.Mark = l.Mark
		c.ix.Put(r)
		c.count.EchoesSuppressed++
		c.lookAgain(now, p, l.Mark)
		return
	}
	if l.Sig.Type == signature.Folder && r.Shown.Type != signature.Folder {
		c.scan(p) // all beneath came with it
	}
	if l.Sig.Type != signature.Folder && r.Shown.Type == signature.Folder {
		c.vanishBeneath(now, p, s.Task.gen, fx)
	}
	c.mint(now, r, l, sig, fx)
	c.lookAgain(now, p, l.Mark)
}

// ahead is how far a ctime lies in the future that a clock gave before it was put
// back, and not a change while the look began.
const ahead = 2 * time.Second

// lookAgain asks for another look at what was seen within a tick of its change: a
// second change within the same tick would not show in ctime. Where ctime lies ahead,
// any change shows, and no number of looks would settle it: scans do what is left.
func (c *Core) lookAgain(now time.Time, p signature.Path, m signature.StatMark) {
	if !m.Settled() && m.CTime < m.Looked+int64(ahead) {
		c.soil(p, now.Add(2*signature.Tick))
	}
}

func (c *Core) sameAsShown(r signature.Record, l signature.Look) bool {
	return r.Held.Form != signature.Nothing && r.Shown == l.Sig
}

// recognised tells whether what stands there is our own hand's work, or what is
// listed first in any case, and takes it in as such.
func (c *Core) recognised(r *signature.Record, l signature.Look, fx *Effects) bool {
	if e, ok := c.ledger[r.Path]; ok {
		delete(c.ledger, r.Path)
		fx.Cleared, fx.Save = append(fx.Cleared, r.Path), true
		if l.Sig != e.Target && betweenFacts(l.Sig, r.Shown, e.Target) {
			// Cut short between two attributes: neither a version nor done.
			r.Shown, r.Mark = l.Sig, l.Mark
			c.put(*r)
			return true
		}
		if l.Sig == e.Target {
			r.Held = signature.Held{Version: e.Version, Form: e.Form}
			r.Shown, r.Mark = l.Sig, l.Mark
			c.put(*r)
			return true
		}
	} else if c.shaken[r.Path] {
		// An apply beneath moved the folder's mtime and was cut short before it
		// was set back. What a user did to the folder at the same time shows in
		// what is in it.
		delete(c.shaken, r.Path)
		only := l.Sig
		only.MTime = r.Shown.MTime
		if only == r.Shown && l.Sig != r.Shown && l.Sig.Type == signature.Folder {
			r.Shown, r.Mark = l.Sig, l.Mark
			r.Held = signature.Held{Form: signature.Plain} // of no version: to be applied again
			c.put(*r)
			return true
		}
	}
	t, ok := c.targetOf(*r)
	if !ok || holds(*r, t) || t.Sig != l.Sig {
		return false
	}
	for _, w := range r.Listed {
		if replaces(r.Held, w) && !w.Sig.SameContent(t.Version.Sig) {
			return false // a user has replaced it, by what others did to it as well
		}
	}
	r.Held = signature.Held{Version: t.Version, Form: t.Form}
	if l.Sig.Linkable() && !c.linkedRight(*r, t, l.Mark) {
		r.Held.Version = signature.Version{Sig: t.Version.Sig} // but for its links
	}
	r.Shown, r.Mark = l.Sig, l.Mark
	c.put(*r)
	c.headsDue, fx.Save = true, true
	return true
}

// betweenFacts tells whether s has the content of old and each fact of old or new.
func betweenFacts(s, old, new signature.Signature) bool {
	if !s.SameContent(old) || !old.SameContent(new) {
		return false
	}
	return (s.Mode == old.Mode || s.Mode == new.Mode) && (s.UID == old.UID || s.UID == new.UID) &&
		(s.GID == old.GID || s.GID == new.GID) && (s.MTime == old.MTime || s.MTime == new.MTime) &&
		(s.Xattrs == old.Xattrs || s.Xattrs == new.Xattrs)
}

// vanished takes in that nothing stands at a path.
func (c *Core) vanished(now time.Time, s Seen, fx *Effects) {
	p := s.Task.Path
	c.lookWorked(p)
	r, ok := c.ix.Get(p)
	if !ok {
		delete(c.gone, p)
		return
	}
	if c.recognised(&r, s.Look, fx) || !r.Shown.Exists() {
		delete(c.gone, p)
		return
	}
	if !s.Task.Final {
		// Perhaps renamed: its new name first, so that its content is known
		// to be there before its old name goes.
		if _, ok := c.gone[p]; !ok {
			c.gone[p] = now
		}
		return
	}
	delete(c.gone, p)
	c.vanishBeneath(now, p, s.Task.gen, fx)
	c.mint(now, r, s.Look, s.Look.Sig, fx)
}

// vanishBeneath takes in that p is no folder, so that nothing can be beneath it.
func (c *Core) vanishBeneath(now time.Time, p signature.Path, gen uint64, fx *Effects) {
	var beneath []signature.Record
	c.ix.Ascend(p, func(r signature.Record) bool {
		if r.Shown.Exists() {
			beneath = append(beneath, r)
		}
		return true
	})
	for _, b := range slices.Backward(beneath) {
		if c.applying[b.Path] || c.touched[b.Path] > gen {
			c.dirty[b.Path] = time.Time{}
			continue
		}
		l := signature.Look{Path: b.Path, Sig: signature.Signature{Type: signature.Absent}}
		if !c.recognised(&b, l, fx) {
			c.mint(now, b, l, l.Sig, fx)
		}
	}
}

// mint makes a version of what was found. It replaces the held version and
// nothing else: what else is listed stays, a conflict.
func (c *Core) mint(now time.Time, r signature.Record, l signature.Look, sig signature.Signature, fx *Effects) {
	held := r.Held.Version
	if c.cfg.ReceiveOnly {
		c.keepLocal(r, l, fx)
		return
	}
	timeOnly := sig.Type == signature.Folder && r.Shown.Type == signature.Folder
	if timeOnly {
		at := sig
		at.MTime = r.Shown.MTime
		timeOnly = at == r.Shown // what is in it came or went
	}
	if r.Held.Form != signature.Nothing && sig.Type == r.Shown.Type {
		sig = asShown(sig, r.Shown, held.Sig)
	}
	switch {
	case sig.Type == signature.Folder:
	case held.Sig.Type == signature.Folder:
		sig.Kept = signature.Kept{Set: true, Facts: held.Sig.Facts}
	default:
		sig.Kept = held.Sig.Kept
	}
	v := signature.Version{Sig: sig, Stamp: now.UnixNano()}
	if sig.Exists() && !(r.Shown.Exists() && sig.SameContent(r.Shown)) && sig.MTime < v.Stamp {
		v.Stamp = sig.MTime
	}
	if !held.Dot.IsZero() && v.Stamp <= held.Stamp {
		v.Stamp = held.Stamp + 1
	}
	c.seq++
	v.Dot = signature.Dot{Actor: c.cfg.Self, Seq: c.seq}
	c.knowledge[c.cfg.Self] = c.seq

	listed := []signature.Version{v}
	for _, w := range r.Listed {
		if !replaces(r.Held, w) {
			listed = append(listed, w)
		}
	}
	signature.SortVersions(listed)
	r.Listed = listed
	c.leftInode(r.Path, r.Mark, l.Mark)
	r.Held = signature.Held{Version: v, Form: signature.Plain}
	r.Shown, r.Mark = l.Sig, l.Mark
	if l.Sig.Type == signature.Absent {
		r.Mark = signature.StatMark{}
	}
	c.put(r)
	c.warm(now, r.Path)
	if timeOnly {
		c.count.FolderVersionsMade++
	} else {
		c.count.VersionsMade++
	}
	c.headsDue, fx.Save = true, true
}

// replaces tells whether a change of what is held here replaces w: the held version,
// and a lesser one that says the same. A folder that is shown for its children's
// sake does not show a file or link that is listed in its place.
func replaces(held signature.Held, w signature.Version) bool {
	if held.Form == signature.Implied && w.Sig.Exists() {
		return false
	}
	return w.Dot == held.Version.Dot || says(held.Version, w) && held.Version.Compare(w) > 0
}

// asShown takes facts that are as they were shown from the held version: a disk
// that cannot keep an attribute must not take it from the others.
func asShown(sig, shown, held signature.Signature) signature.Signature {
	if held.Type != sig.Type {
		return sig
	}
	if sig.Mode == shown.Mode {
		sig.Mode = held.Mode
	}
	if sig.UID == shown.UID {
		sig.UID = held.UID
	}
	if sig.GID == shown.GID {
		sig.GID = held.GID
	}
	if sig.MTime == shown.MTime {
		sig.MTime = held.MTime
	}
	if sig.Xattrs == shown.Xattrs {
		sig.Xattrs = held.Xattrs
	}
	return sig
}

// warm makes a path that changes again and again wait longer for its next look.
func (c *Core) warm(now time.Time, p signature.Path) {
	h := c.hot[p]
	if !h.last.IsZero() && now.Sub(h.last) < 2*h.delay+100*time.Millisecond {
		// Beyond hotCalm only for one that changed again and again meanwhile: not
		// for somebody who waits for each change to arrive before the next.
		if h.delay < hotCalm || h.hits >= hotHits {
			h.delay = min(max(2*h.delay, 10*time.Millisecond), hotMax)
		}
	} else {
		h.delay = 0
	}
	h.last, h.hits = now, 0
	c.hot[p] = h
	if len(c.hot) > 1<<14 {
		for q, h := range c.hot {
			if now.Sub(h.last) > 2*h.delay+100*time.Millisecond {
				delete(c.hot, q)
			}
		}
	}
}

// keepLocal notes a local change on a receive-only node: kept, reported, not sent.
func (c *Core) keepLocal(r signature.Record, l signature.Look, fx *Effects) {
	r.Shown, r.Mark = l.Sig, l.Mark
	t, ok := c.targetOf(r)
	switch {
	case ok && t.Sig == l.Sig:
		r.Held = signature.Held{Version: t.Version, Form: t.Form}
	case !ok && !l.Sig.Exists():
		r.Held = signature.Held{}
	case ok:
		r.Held = signature.Held{Version: t.Version, Form: signature.Local}
	default:
		r.Held = signature.Held{Form: signature.Local}
	}
	c.put(r)
	fx.Save = true
}
