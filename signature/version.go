package signature

import (
	"cmp"
	"slices"
	"time"
)

// Type is what kind of thing stands at a path.
type Type uint8

const (
	Unknown Type = iota // could not be read: says nothing about the path
	Absent
	File
	Folder
	Symlink
	Fifo
	Socket
	CharDevice
	BlockDevice
)

var typeNames = [...]string{"unknown", "absent", "file", "folder", "symlink", "fifo", "socket", "char device", "block device"}

func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return "invalid"
}

// Algorithm names a content hash. It is a field so that another can come.
type Algorithm uint8

const (
	NoHash Algorithm = iota
	SHA256
)

// A Hash is the identity of a content. The zero Hash is no content.
type Hash struct {
	Algorithm Algorithm
	Sum       [32]byte
}

// Xattrs are a path's replicated extended attributes, ACLs included, in one
// canonical encoding (see EncodeXattrs), so that equality is equality of strings.
type Xattrs string

// Facts are what any existing path has.
type Facts struct {
	Mode   uint32 // permission, setuid, setgid and sticky bits; 0 for symlinks
	UID    uint32
	GID    uint32
	MTime  int64 // nanoseconds since 1970
	Xattrs Xattrs
}

// Kept are the facts of the folder that a version replaced, for as long as
// something beneath it implies the folder.
type Kept struct {
	Set bool
	Facts
}

// A Signature is the replicated facts of a path. Two are equal if == says so. An
// Absent one (a tombstone) has nothing but Kept.
type Signature struct {
	Type Type
	Facts
	Size   int64  // files only
	Hash   Hash   // files only
	Target string // symlinks only
	Rdev   uint64 // devices only
	Group  Dot    // hard links: the dot of the change that formed the group
	Kept   Kept
}

// Exists tells whether s is neither absent nor unknown.
func (s Signature) Exists() bool { return s.Type > Absent }

// Linkable tells whether what stands there can have several names: all but folders.
func (s Signature) Linkable() bool { return s.Exists() && s.Type != Folder }

// SameContent tells whether s and o differ in facts at the most: same bytes,
// same link target, same device. Two folders have equal contents, and so do two
// tombstones.
func (s Signature) SameContent(o Signature) bool {
	return s.Type == o.Type && s.Size == o.Size && s.Hash == o.Hash && s.Target == o.Target && s.Rdev == o.Rdev
}

// Bare returns s without what no disk shows: the group and the kept facts.
func (s Signature) Bare() Signature {
	s.Group, s.Kept = Dot{}, Kept{}
	return s
}

// A Case is the digest of the versions that a verdict chose among.
type Case [16]byte

// A Version is one change of one path. A tombstone is a version.
type Version struct {
	Dot   Dot
	Sig   Signature
	Stamp int64 // nanoseconds since 1970, by the author's clock; fixed for ever
	Case  Case  // of a verdict; zero otherwise
}

// Compare orders versions by (stamp, actor, seq). It reads nothing but the
// record, so that all nodes order alike.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Stamp, w.Stamp), v.Dot.Compare(w.Dot))
}

// A StatMark is local facts that prove "unchanged since I looked". It is never sent.
type StatMark struct {
	CTime, MTime int64 // nanoseconds
	Ino          uint64
	Dev          uint64
	Size         int64
	Mode         uint32 // with the type bits
	Links        uint32
	Looked       int64 // nanoseconds: when the look began, by the local clock
}

// Tick is how long after a change a file system may still give the same ctime.
const Tick = 20 * time.Millisecond

// Same tells whether both marks were taken of the same state. The moments at
// which they were taken do not matter.
func (m StatMark) Same(o StatMark) bool {
	m.Looked, o.Looked, m.Links, o.Links = 0, 0, 0, 0
	return m == o
}

// Settled tells whether m was taken so long after the last change that a later
// one must show in ctime.
func (m StatMark) Settled() bool { return m.CTime != 0 && m.Looked-m.CTime > int64(Tick) }

// Form says in which form the disk shows what is held.
type Form uint8

const (
	Nothing Form = iota // nothing was ever held here
	Plain               // as the version says
	Implied             // a folder that its children imply; the version may be none
	Local               // on a receive-only node: changed here, away from the version, and kept
)

// Held is the version that this disk shows, and in which form.
type Held struct {
	Version Version
	Form    Form
}

// A Record is what the index keeps of a path.
type Record struct {
	Path   Path
	Listed []Version // greatest first; superseded by nothing known; never shared
	Held   Held
	Shown  Signature // what the disk gave back right after the apply, or at the look
	Mark   StatMark  // of Shown
}

// Empty tells whether the record says nothing and need not be kept.
func (r Record) Empty() bool { return len(r.Listed) == 0 && r.Held.Form == Nothing }

// List returns the listed version with that dot.
func (r Record) List(d Dot) (Version, bool) {
	for _, v := range r.Listed {
		if v.Dot == d {
			return v, true
		}
	}
	return Version{}, false
}

// SortVersions puts the greatest first.
func SortVersions(vs []Version) {
	slices.SortFunc(vs, func(v, w Version) int { return w.Compare(v) })
}

// A Listing is all that a node lists for a path: what travels in a cut.
type Listing struct {
	Path     Path
	Versions []Version
}

// A Look is what one look at one path found.
type Look struct {
	Path Path
	Sig  Signature // Group and Kept are not on the disk; Type is Unknown if Err is set
	Mark StatMark  // zero where nothing stands
	// Unchanged: the mark given was settled and still holds; Sig is not filled in.
	Unchanged bool
	Err       error
}
