package replica

import (
	"slices"
	"time"

	"github.com/clsync/clsync/signature"
)

// planApply makes the next batch out of what is pending and can land now. Folders
// come before what is in them, removals last and from the bottom up; what an
// earlier entry of the batch makes possible may follow in the same batch.
func (c *Core) planApply(now time.Time, fx *Effects, wake *wakeup) {
	if len(c.applying) > 0 || len(c.pending) == 0 {
		return
	}
	ready := make([]signature.Path, 0, len(c.pending))
	for p, d := range c.pending {
		if s, waits := c.retry[p]; waits && s.at.After(now) {
			wake.by(s.at)
			continue
		}
		if d.content && !d.same {
			// The content must be somewhere, or that of a name to be linked with.
			s, staged := c.staged[p]
			if !(staged && s.hash == d.hash) && len(c.linked[d.group]) == 0 && !c.here(p, d) {
				continue
			}
		}
		ready = append(ready, p)
	}
	slices.Sort(ready)
	ready = slices.DeleteFunc(ready, func(p signature.Path) bool { return c.adopts(now, p, fx, wake) })
	b := batch{c: c, made: map[signature.Path]signature.Type{}, moved: map[signature.Path]bool{}, groups: map[signature.Dot]int{}}
	var removals []signature.Path
	for _, p := range ready {
		if len(b.tasks) >= applyBatch {
			break
		}
		r := c.get(p)
		t, ok := c.targetOf(r)
		switch {
		case !ok:
		case t.Sig.Type == signature.Absent:
			removals = append(removals, p)
		default:
			b.add(r, t)
		}
	}
	for _, p := range slices.Backward(removals) {
		if len(b.tasks) >= 2*applyBatch {
			break
		}
		r := c.get(p)
		if t, ok := c.targetOf(r); ok {
			b.remove(r, t)
		}
	}
	for _, task := range b.tasks {
		c.applying[task.Path] = true
		if parent, ok := task.Path.Parent(); ok {
			c.applying[parent] = true // its mtime moves by our hand
		}
		fx.Ledger = append(fx.Ledger, LedgerEntry{task.Path, task.Version, task.Form, task.Target})
	}
	if len(b.tasks) > 0 {
		fx.Apply, fx.Save = b.tasks, true
		c.count.Applies += uint64(len(b.tasks))
	}
}

// adopts holds a version that the disk shows already, without touching the disk: a
// verdict, or a tree that was here before it was joined. All of these come before
// the first task: a name that is to be linked must find what it is linked with.
func (c *Core) adopts(now time.Time, p signature.Path, fx *Effects, wake *wakeup) bool {
	if d := c.pending[p]; d == nil || !d.same {
		return false
	}
	r := c.get(p)
	t, ok := c.targetOf(r)
	if !ok || r.Held.Form == signature.Nothing || r.Held.Form == signature.Local || r.Shown != t.Sig {
		return false
	}
	if t.Sig.Linkable() && !c.linkedRight(r, t, r.Mark) {
		return false
	}
	r.Held = signature.Held{Version: t.Version, Form: t.Form}
	c.put(r)
	c.headsDue, fx.Save = true, true
	if c.conflicts[p] != nil {
		wake.by(now) // it waited for this
	}
	return true
}

// A batch collects tasks and what the disk will show once they are done.
type batch struct {
	c      *Core
	tasks  []ApplyTask
	made   map[signature.Path]signature.Type
	moved  map[signature.Path]bool // sources of FromMove
	groups map[signature.Dot]int   // the task that makes the inode of a group
}

// folder tells whether p will be a folder when the batch comes to it.
func (b *batch) folder(p signature.Path) bool {
	if t, ok := b.made[p]; ok {
		return t == signature.Folder
	}
	r := b.c.get(p)
	return heldFolder(r)
}

// full tells whether anything the index knows of still stands beneath p.
func (b *batch) full(p signature.Path) bool {
	full := false
	b.c.ix.Children(p, func(r signature.Record) bool {
		t, made := b.made[r.Path]
		full = r.Shown.Exists() && !b.moved[r.Path] && (!made || t != signature.Absent)
		return !full
	})
	return full
}

func (b *batch) add(r signature.Record, t target) {
	if parent, ok := r.Path.Parent(); ok && !b.folder(parent) && !b.revive(parent) {
		return
	}
	if r.Shown.Type == signature.Folder && t.Sig.Type != signature.Folder && b.full(r.Path) {
		return // its removals come first, in a batch of their own
	}
	task := ApplyTask{Path: r.Path, Version: t.Version, Form: t.Form, Target: t.Sig, Expect: r.Shown, Mark: r.Mark}
	if t.Sig.Linkable() && !b.link(&task, r, t) && !b.content(&task, r, t) {
		return
	}
	task.Keep = keeps(r, t)
	b.tasks = append(b.tasks, task)
	b.made[r.Path] = t.Sig.Type
	if t.Sig.Linkable() && t.Form == signature.Plain {
		b.groups[groupName(t.Version)] = len(b.tasks) - 1
	}
}

// revive makes a folder again that was removed or replaced on a receive-only node:
// what others change beneath it must land.
func (b *batch) revive(p signature.Path) bool {
	r := b.c.get(p)
	t, ok := b.c.targetOf(r)
	if !ok || r.Held.Form != signature.Local || t.Sig.Type != signature.Folder || b.made[p] != signature.Unknown {
		return false
	}
	b.add(r, t)
	return b.folder(p)
}

// link finds a mate that is held already, or will be by then: it gives the inode.
func (b *batch) link(task *ApplyTask, r signature.Record, t target) bool {
	c := b.c
	linked := false
	c.mates(r.Path, t, func(q signature.Record) bool {
		if holdsFirst(c, q) && b.made[q.Path] == signature.Unknown {
			linked = true
			if r.Shown.Linkable() && r.Mark.Ino == q.Mark.Ino && r.Mark.Dev == q.Mark.Dev {
				task.Source = NoContent // linked with it already; facts follow
			} else {
				task.Source, task.Name, task.From, task.FromSig = FromLink, q.Path, q.Mark, q.Shown
			}
			return false
		}
		return true
	})
	if linked {
		return true
	}
	if i, ok := b.groups[groupName(t.Version)]; ok && b.tasks[i].Target == t.Sig {
		if q := b.tasks[i]; q.Source == NoContent && q.Expect == r.Shown && q.Mark.Ino == r.Mark.Ino && q.Mark.Dev == r.Mark.Dev {
			return true // of one inode, and changed with it
		}
		task.Source, task.Name, task.FromSig = FromLink, b.tasks[i].Path, t.Sig
		return true
	}
	return false
}

// content finds where a content comes from, and says false while it must still be
// fetched. An empty file, and what is no file, is made.
func (b *batch) content(task *ApplyTask, r signature.Record, t target) bool {
	c := b.c
	if r.Shown.SameContent(t.Sig) {
		if c.strangers(r, t) {
			task.Source, task.Name, task.From, task.FromSig = FromCopy, r.Path, r.Mark, r.Shown
		}
		return true
	}
	if t.Sig.Type != signature.File || t.Sig.Size == 0 {
		return true
	}
	if s, ok := c.staged[r.Path]; ok && s.hash == t.Sig.Hash {
		task.Source, task.Staged = FromStaging, s.Staged
		return true
	}
	if c.noLocal[r.Path] {
		return false
	}
	found := false
	c.ix.ByHash(t.Sig.Hash, func(q signature.Path) bool {
		if q == r.Path || b.made[q] != signature.Unknown || b.moved[q] || c.applying[q] {
			return true
		}
		qr := c.get(q)
		if qr.Shown.Type != signature.File || qr.Held.Form != signature.Plain {
			return true
		}
		task.Source, task.Name, task.From, task.FromSig, found = FromCopy, q, qr.Mark, qr.Shown, true
		if qt, ok := c.targetOf(qr); ok && qt.Sig.Type == signature.Absent && qr.Mark.Links <= 1 && c.pending[q] != nil && keeps(qr, qt) == nil {
			if at := c.retry[q].at; at.IsZero() {
				task.Source = FromMove
				b.moved[q] = true
			}
		}
		return false
	})
	return found
}

// strangers tells whether a name shares its inode with one that is not to be
// linked with it: then a change in place would change the other. That the other
// is to follow is not enough: until its own version is here, a look would take
// our change for a user's.
func (c *Core) strangers(r signature.Record, t target) bool {
	strange := false
	c.sameInode(r.Path, r.Mark, func(q signature.Record) bool {
		qt, ok := c.targetOf(q)
		strange = !ok || qt.Sig != t.Sig || groupName(qt.Version) != groupName(t.Version)
		return !strange
	})
	return strange
}

func (b *batch) remove(r signature.Record, t target) {
	c := b.c
	if b.full(r.Path) {
		return
	}
	// The content may be wanted under another name: that one first, or the
	// content would have to come over the network again.
	if h := r.Shown.Hash; r.Shown.Type == signature.File && len(c.wanted[h]) > 0 && !b.moved[r.Path] && b.waits(h) {
		return
	}
	b.tasks = append(b.tasks, ApplyTask{Path: r.Path, Version: t.Version, Form: t.Form, Target: t.Sig,
		Expect: r.Shown, Mark: r.Mark, Keep: keeps(r, t)})
	b.made[r.Path] = signature.Absent
}

// waits tells whether a path that wants the content can still land by itself, and
// is not served by this very batch.
func (b *batch) waits(h signature.Hash) bool {
	for p := range b.c.wanted[h] {
		if b.made[p] == signature.Unknown && b.c.retry[p].at.IsZero() && !b.c.noLocal[p] {
			if parent, ok := p.Parent(); !ok || b.folder(parent) {
				return true
			}
		}
	}
	return false
}

// keeps says whose content goes into the conflict store when the target takes its
// place: a node that ceases to show the content of a listed version keeps it,
// under whatever dot it shows it. What was changed here on a receive-only node is
// kept as well.
func keeps(r signature.Record, t target) *signature.Version {
	switch r.Shown.Type {
	case signature.Absent, signature.Unknown, signature.Folder:
		return nil
	}
	if r.Shown.SameContent(t.Sig) {
		return nil
	}
	for _, v := range r.Listed { // also where v is the target, and children imply a folder
		if v.Sig.SameContent(r.Shown) {
			return &v
		}
	}
	if r.Held.Form == signature.Local {
		return &signature.Version{Sig: r.Shown, Stamp: r.Shown.MTime}
	}
	return nil
}

// appliedAll takes in what became of a batch.
func (c *Core) appliedAll(now time.Time, ev Applied, fx *Effects) {
	clear(c.applying)
	c.gen++
	for _, res := range ev.Results {
		p := res.Task.Path
		c.touched[p] = c.gen
		if parent, ok := p.Parent(); ok {
			c.touched[parent] = c.gen
		}
		fx.Cleared = append(fx.Cleared, p)
		if res.Task.Source == FromStaging && res.Outcome == Done {
			c.dropStaged(p)
		}
		if res.Kept && res.Task.Keep != nil {
			c.kept(p, *res.Task.Keep)
		}
		c.applied(now, res)
	}
	c.headsDue, fx.Save = true, true
}

func (c *Core) applied(now time.Time, res Result) {
	p, t := res.Task.Path, res.Task
	r := c.get(p)
	if res.Outcome == Done && t.Keep != nil && !res.Kept {
		// A user was first: what was to be kept had gone by the user's hand, and
		// that is a change which replaces the version.
		res.Outcome = Moved
	} else if res.Outcome == Moved && t.Keep == nil && t.Target.Exists() && res.Look.Sig == t.Target {
		res.Outcome = Done // by way of another name, or by a user's hand
	}
	if res.Outcome == Done && res.Look.Err == nil {
		delete(c.retry, p)
		delete(c.noLocal, p)
		r.Held = signature.Held{Version: t.Version, Form: t.Form}
		r.Shown, r.Mark = res.Look.Sig, res.Look.Mark
		want := t.Target
		if res.Unkept {
			want.Xattrs = r.Shown.Xattrs
		}
		if r.Shown != want && !coarser(r.Shown, want) {
			// Somebody has changed it since our hand was off it. That is a local
			// change, and the next look shall find it as one.
			r.Shown, r.Mark.Looked = want, 0
			c.dirty[p] = time.Time{}
		} else if r.Shown.Linkable() && !c.linkedRight(r, target{t.Version, t.Form, t.Target}, r.Mark) {
			// What it is to be linked with has come to be held meanwhile.
			r.Held.Version = signature.Version{Sig: t.Version.Sig}
		}
		c.put(r)
		// Our hand has moved what other names show, too.
		c.leftInode(p, t.Mark, r.Mark)
		c.lookAtLinks(p, r.Mark)
		return
	}
	switch res.Outcome {
	case Moved:
		c.dirty[p] = time.Time{}
		c.setRetry(now, p, Moved, "changed here meanwhile", res.Err, 50*time.Millisecond)
	case NoSource:
		c.noLocal[p] = true
		if t.Source == FromStaging {
			c.dropStaged(p)
		}
		c.setRetry(now, p, NoSource, "content was not where it was", res.Err, 10*time.Millisecond)
	case Busy:
		c.setRetry(now, p, Busy, "open for writing here", res.Err, 0)
	case NoParent, NotEmpty:
		c.dirty[p] = time.Time{}
		c.scan(p)
		c.setRetry(now, p, res.Outcome, res.Outcome.String(), res.Err, 0)
	default:
		c.dirty[p] = time.Time{}
		c.setRetry(now, p, Blocked, "cannot be applied", res.Err, 0)
	}
	c.review(p) // perhaps it is not wanted any more
}

// coarser tells whether shown is what a disk gives back that keeps times with less
// than a nanosecond's resolution. Such a disk must not look changed for ever.
func coarser(shown, want signature.Signature) bool {
	at := shown
	at.MTime = want.MTime
	if at != want {
		return false
	}
	for _, tick := range []time.Duration{100, time.Microsecond, time.Millisecond, 10 * time.Millisecond, time.Second, 2 * time.Second} {
		if shown.MTime%int64(tick) == 0 && want.MTime-shown.MTime >= 0 && want.MTime-shown.MTime < int64(tick) {
			return true
		}
	}
	return false
}

// setRetry notes why a path cannot land and when it is tried again: after wait, or
// after a time that doubles with every try.
func (c *Core) setRetry(now time.Time, p signature.Path, kind Outcome, why string, err error, wait time.Duration) {
	s := c.retry[p]
	if s.kind != kind || s.since.IsZero() {
		s = retryState{since: now}
	}
	s.tries++
	if wait == 0 {
		wait = min(200*time.Millisecond<<min(s.tries, 8), 20*time.Second)
	} else if s.tries > 3 {
		wait = min(wait<<min(s.tries-3, 8), 10*time.Second)
	}
	s.why, s.err, s.kind, s.at, s.look = why, err, kind, now.Add(wait), false
	c.retry[p] = s
}

// lookFailed notes why a path cannot be looked at.
func (c *Core) lookFailed(now time.Time, p signature.Path, kind Outcome, why string, err error, wait time.Duration) {
	c.setRetry(now, p, kind, why, err, wait)
	s := c.retry[p]
	s.look = true
	c.retry[p] = s
	c.soil(p, s.at)
}

// lookWorked forgets that a look failed; why an apply failed stays.
func (c *Core) lookWorked(p signature.Path) {
	delete(c.moving, p)
	if c.retry[p].look {
		delete(c.retry, p)
	}
}
