package replica

import (
	"maps"
	"slices"

	"github.com/clsync/clsync/signature"
)

// A fakeRun carries out one batch on a fakeDisk by the rules of transfer/disk:
// compare and swap per path, the times of folders last, then the looks.
type fakeRun struct {
	d       *fakeDisk
	staged  func(Staged) (content string, ok bool)
	used    func(Staged)
	keep    func(p signature.Path, content string)
	refuse  func(p signature.Path) (Outcome, bool) // a path that cannot be applied now
	between func()                                 // what users do meanwhile
	stop    int                                    // the power goes after so many tasks; less than 0: never
	half    bool                                   // and the last one is half done

	touched map[signature.Path]*touchedFolder
	folders map[signature.Path]int64
	took    map[signature.Path]bool
	copies  map[int]string
	known   map[uint64]knownInode
}

type touchedFolder struct {
	n            *inode
	before, last int64
	foreign      bool
}

type knownInode struct {
	mark signature.StatMark
	sig  signature.Signature
}

func (r *fakeRun) run(tasks []ApplyTask) ([]Result, bool) {
	r.touched, r.folders = map[signature.Path]*touchedFolder{}, map[signature.Path]int64{}
	r.took, r.copies, r.known = map[signature.Path]bool{}, map[int]string{}, map[uint64]knownInode{}
	results := make([]Result, len(tasks))
	for i, t := range tasks {
		results[i] = Result{Task: t}
		results[i].Outcome = r.prepare(i, t)
	}
	for i, t := range tasks {
		if i == r.stop {
			return nil, false
		}
		if results[i].Outcome == Done {
			r.half = r.half && i+1 == r.stop
			results[i].Outcome, results[i].Kept = r.apply(i, t)
		}
		r.between()
	}
	if r.stop >= 0 {
		return nil, false
	}
	for i, t := range tasks {
		if results[i].Outcome != Done {
			delete(r.folders, t.Path)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(r.folders)) {
		if n := r.d.names[p]; n != nil && n.kind == signature.Folder && n.mtime != r.folders[p] {
			n.mtime, n.ctime = r.folders[p], r.d.stamp()
		}
	}
	for _, p := range slices.Sorted(maps.Keys(r.touched)) {
		t := r.touched[p]
		if _, target := r.folders[p]; target || t.n == nil || r.d.names[p] != t.n || t.foreign || t.n.mtime != t.last {
			continue
		}
		if t.n.mtime != t.before {
			t.n.mtime, t.n.ctime = t.before, r.d.stamp()
		}
	}
	r.between()
	for i, t := range tasks {
		results[i].Look = r.d.look(t.Path, signature.Signature{}, signature.StatMark{})
	}
	return results, true
}

// prepare makes ready what does not depend on the order.
func (r *fakeRun) prepare(i int, t ApplyTask) Outcome {
	switch t.Source {
	case FromStaging:
		c, ok := r.staged(t.Staged)
		if !ok {
			return Blocked
		}
		r.copies[i] = c
	case FromCopy:
		n := r.d.names[t.Name]
		if t.Target.Type == signature.File && (n == nil || n.kind != signature.File || hashOf(n.content) != t.Target.Hash) {
			return NoSource
		}
		if n == nil {
			return Done
		}
		r.copies[i] = n.content
	}
	return Done
}

// touch notes that our hand will move a folder's time; the function returned, that
// it has.
func (r *fakeRun) touch(p signature.Path) func() {
	up, ok := p.Parent()
	if !ok {
		return func() {}
	}
	n := r.d.names[up]
	t := r.touched[up]
	switch {
	case t == nil || t.n != n:
		t = &touchedFolder{n: n, before: n.mtime, last: n.mtime}
		r.touched[up] = t
	case t.last != n.mtime:
		t.foreign = true
	}
	return func() { t.last = n.mtime }
}

// verify tells whether the inode is what was expected.
func (r *fakeRun) verify(n *inode, expect signature.Signature, mark signature.StatMark) bool {
	now := r.d.mark(n)
	if n.kind != expect.Type {
		return false
	}
	if now.Same(mark) && mark.Settled() {
		return true
	}
	if k, ok := r.known[n.ino]; ok && k.mark.Same(now) && k.sig == expect.Bare() {
		return true
	}
	s := r.d.signature(n)
	if s.Type == signature.Folder {
		s.MTime = expect.MTime
	}
	return s == expect.Bare()
}

func (r *fakeRun) apply(i int, t ApplyTask) (Outcome, bool) {
	if o, no := r.refuse(t.Path); no && !r.took[t.Path] {
		return o, false
	}
	d, n := r.d, r.d.names[t.Path]
	switch {
	case t.Target.Type == signature.Absent && !t.Expect.Exists():
		if n != nil {
			return Moved, false
		}
		return Done, false
	case t.Target.Type == signature.Absent && n == nil:
		return Done, false
	case t.Target.Type == signature.Absent && t.Expect.Type == signature.Folder:
		switch {
		case n.kind != signature.Folder:
			return Moved, false
		case len(d.children(t.Path)) > 0:
			return NotEmpty, false
		}
		over := r.touch(t.Path)
		d.remove(t.Path)
		over()
		return Done, false
	case t.Target.Type == signature.Absent:
		if r.took[t.Path] {
			return Moved, false
		}
		if !r.verify(n, t.Expect, t.Mark) {
			return Moved, false
		}
		over := r.touch(t.Path)
		kept := r.displace(t, n)
		d.remove(t.Path)
		over()
		return Done, kept
	case !t.Expect.Exists():
		if !d.hasParent(t.Path) {
			return NoParent, false
		}
		if n != nil {
			return Moved, false
		}
		fresh, o := r.build(i, t)
		if o != Done {
			return o, false
		}
		over := r.touch(t.Path)
		d.put(t.Path, fresh)
		over()
		r.landed(t, fresh)
		return Done, false
	case t.Source == NoContent && t.Target.SameContent(t.Expect):
		return r.amend(t, n), false
	}
	if !d.hasParent(t.Path) {
		return NoParent, false
	}
	if n == nil || !r.verify(n, t.Expect, t.Mark) {
		return Moved, false
	}
	if n.kind == signature.Folder && len(d.children(t.Path)) > 0 {
		return NotEmpty, false
	}
	fresh, o := r.build(i, t)
	if o != Done {
		return o, false
	}
	if fresh == n {
		return Done, false
	}
	over := r.touch(t.Path)
	kept := r.displace(t, n)
	n.ctime = d.stamp()
	d.put(t.Path, fresh)
	over()
	r.landed(t, fresh)
	return Done, kept
}

func (r *fakeRun) landed(t ApplyTask, n *inode) {
	if n.kind == signature.Folder {
		r.folders[t.Path] = t.Target.MTime
	}
	r.known[n.ino] = knownInode{r.d.mark(n), t.Target.Bare()}
}

func (r *fakeRun) displace(t ApplyTask, n *inode) bool {
	if t.Keep == nil {
		return false
	}
	r.keep(t.Path, n.content)
	return true
}

func (r *fakeRun) amend(t ApplyTask, n *inode) Outcome {
	if n == nil {
		return Moved
	}
	now := r.d.mark(n)
	if k, ok := r.known[n.ino]; ok && k.mark.Same(now) && k.sig == t.Target.Bare() {
		return Done
	}
	if !r.verify(n, t.Expect, t.Mark) {
		return Moved
	}
	if n.kind != signature.Symlink {
		n.mode = t.Target.Mode
	}
	n.ctime = r.d.stamp()
	if r.half {
		return Done
	}
	n.mtime = t.Target.MTime
	switch n.kind {
	case signature.Folder:
		r.folders[t.Path] = t.Target.MTime
	case signature.File:
		r.known[n.ino] = knownInode{r.d.mark(n), t.Target.Bare()}
	}
	return Done
}

// build makes what the target says, or finds it.
func (r *fakeRun) build(i int, t ApplyTask) (*inode, Outcome) {
	d := r.d
	switch t.Source {
	case FromLink:
		n := d.names[t.Name]
		mark := signature.StatMark{}
		if t.FromSig.Bare() == t.Target.Bare() {
			mark = t.From
		}
		if n == nil || n.kind == signature.Folder || !r.verify(n, t.Target, mark) {
			return nil, NoSource
		}
		return n, Done
	case FromMove:
		n := d.names[t.Name]
		if n == nil || t.FromSig.Hash != t.Target.Hash || !r.verify(n, t.FromSig, t.From) {
			return nil, NoSource
		}
		if len(d.links(n)) > 1 {
			r.copies[i] = n.content
			break
		}
		over := r.touch(t.Name)
		d.remove(t.Name)
		over()
		r.took[t.Name] = true
		n.mode, n.mtime = t.Target.Mode, t.Target.MTime
		return n, Done
	case FromStaging:
		r.used(t.Staged)
	}
	c := t.Target.Target
	if t.Target.Type == signature.File {
		var ok bool
		if c, ok = r.copies[i]; !ok {
			return nil, NoSource
		}
	}
	n := d.make(t.Target.Type, t.Target.Mode, c)
	n.mtime = t.Target.MTime
	return n, Done
}
