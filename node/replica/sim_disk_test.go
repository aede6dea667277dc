package replica

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"github.com/clsync/clsync/signature"
)

// A fakeDisk is a node's tree: names of inodes, with the few properties of a file
// system that the rules lean on. ctime has a grain, a write moves mtime, a change
// of a folder's names moves the folder's.
type fakeDisk struct {
	names map[signature.Path]*inode
	last  uint64
	now   func() int64
}

type inode struct {
	ino          uint64
	kind         signature.Type
	mode         uint32
	mtime, ctime int64
	content      string // a link's target, too
}

func newDisk(now func() int64) *fakeDisk {
	return &fakeDisk{names: map[signature.Path]*inode{}, now: now}
}

func hashOf(content string) signature.Hash {
	return signature.Hash{Algorithm: signature.SHA256, Sum: sha256.Sum256([]byte(content))}
}

// grain is how coarse the kernel's clock is. It stands on no whole microsecond, as
// the times of a disk do that keeps no nanoseconds.
const grain = 4e6

func (d *fakeDisk) stamp() int64 { return d.now()/grain*grain - 1_234_567 }

func (d *fakeDisk) make(kind signature.Type, mode uint32, content string) *inode {
	d.last++
	t := d.stamp()
	return &inode{ino: d.last, kind: kind, mode: mode, mtime: t, ctime: t, content: content}
}

func (d *fakeDisk) links(n *inode) (ps []signature.Path) {
	for p, m := range d.names {
		if m == n {
			ps = append(ps, p)
		}
	}
	slices.Sort(ps)
	return ps
}

func (d *fakeDisk) all() []signature.Path { return slices.Sorted(maps.Keys(d.names)) }

func (d *fakeDisk) children(dir signature.Path) (ps []signature.Path) {
	for _, p := range d.all() {
		if up, _ := p.Parent(); up == dir {
			ps = append(ps, p)
		}
	}
	return ps
}

func (d *fakeDisk) beneath(dir signature.Path) (ps []signature.Path) {
	for _, p := range d.all() {
		if p.In(dir) {
			ps = append(ps, p)
		}
	}
	return ps
}

// folder tells whether a name can be made in dir.
func (d *fakeDisk) folder(dir signature.Path) bool {
	return dir == "" || d.names[dir] != nil && d.names[dir].kind == signature.Folder
}

func (d *fakeDisk) hasParent(p signature.Path) bool {
	up, _ := p.Parent()
	return d.folder(up)
}

// stir is what the kernel does to a folder whose names change.
func (d *fakeDisk) stir(p signature.Path) {
	if up, ok := p.Parent(); ok && d.names[up] != nil {
		d.names[up].mtime, d.names[up].ctime = d.stamp(), d.stamp()
	}
}

func (d *fakeDisk) put(p signature.Path, n *inode) {
	d.names[p] = n
	n.ctime = d.stamp()
	d.stir(p)
}

func (d *fakeDisk) remove(p signature.Path) {
	n := d.names[p]
	delete(d.names, p)
	n.ctime = d.stamp()
	d.stir(p)
}

func (d *fakeDisk) signature(n *inode) signature.Signature {
	s := signature.Signature{Type: n.kind, Facts: signature.Facts{Mode: n.mode, MTime: n.mtime}}
	switch n.kind {
	case signature.File:
		s.Size, s.Hash = int64(len(n.content)), hashOf(n.content)
	case signature.Symlink:
		s.Mode, s.Target = 0, n.content
	}
	return s
}

func (d *fakeDisk) mark(n *inode) signature.StatMark {
	m := signature.StatMark{CTime: n.ctime, MTime: n.mtime, Ino: n.ino, Dev: 1, Mode: uint32(n.kind)<<12 | n.mode, Links: 1, Looked: d.now()}
	if n.kind != signature.Folder {
		m.Links = uint32(len(d.links(n)))
	}
	if n.kind == signature.File {
		m.Size = int64(len(n.content))
	}
	return m
}

// look is what signature.Root.Look does.
func (d *fakeDisk) look(p signature.Path, shown signature.Signature, mark signature.StatMark) signature.Look {
	n := d.names[p]
	if n == nil {
		return signature.Look{Path: p, Sig: signature.Signature{Type: signature.Absent}}
	}
	fresh := d.mark(n)
	if shown.Exists() && mark.Settled() && fresh.Same(mark) {
		return signature.Look{Path: p, Mark: fresh, Unchanged: true}
	}
	return signature.Look{Path: p, Sig: d.signature(n), Mark: fresh}
}

func (d *fakeDisk) String() string {
	s := ""
	for _, p := range d.all() {
		n := d.names[p]
		s += fmt.Sprintf("%s %s mode=%o mtime=%d %q links=%v\n", p, n.kind, n.mode, n.mtime, n.content, d.links(n))
	}
	return s
}
