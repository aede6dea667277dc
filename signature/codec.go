package signature

import (
	"math"
	"slices"

	"github.com/clsync/clsync/signature/wire"
)

// Bounds of what a peer may send, beyond those of Path.
const (
	MaxXattrs   = 128 << 10 // bytes of one path's attributes, encoded
	MaxVersions = 256       // listed for one path
	MaxActors   = 4096      // in one knowledge
	MaxSeq      = 1 << 48   // a seq beyond it is absurd: no node lives that long
)

// Write and read functions for the types that travel and that the index keeps.
// PROTOCOL.md gives the layout. All of them are tuples.

func writeActor(w *wire.Writer, a Actor) {
	w.Array(2)
	w.Bytes(a.Node[:])
	w.Uint(a.Incarnation)
}

func readActor(r *wire.Reader) (a Actor) {
	r.Tuple(2)
	r.Fixed(a.Node[:])
	a.Incarnation = r.Uint(math.MaxUint64)
	return a
}

// WriteDot writes a dot; the zero dot is an empty tuple.
func WriteDot(w *wire.Writer, d Dot) {
	if d.IsZero() {
		w.Array(0)
		return
	}
	w.Array(3)
	w.Bytes(d.Actor.Node[:])
	w.Uint(d.Actor.Incarnation)
	w.Uint(d.Seq)
}

// ReadDot reads a dot.
func ReadDot(r *wire.Reader) (d Dot) {
	switch n := r.Array(3); n {
	case 0:
	case 3:
		r.Fixed(d.Actor.Node[:])
		d.Actor.Incarnation = r.Uint(math.MaxUint64)
		if d.Seq = r.Uint(MaxSeq); d.Seq == 0 {
			r.Fail("dot with seq 0")
		}
	default:
		r.Fail("dot of %d", n)
	}
	return d
}

func writeFacts(w *wire.Writer, f Facts) {
	w.Uint(uint64(f.Mode))
	w.Uint(uint64(f.UID))
	w.Uint(uint64(f.GID))
	w.Int(f.MTime)
	w.String(string(f.Xattrs))
}

func readFacts(r *wire.Reader) (f Facts) {
	f.Mode = uint32(r.Uint(0o7777))
	f.UID = uint32(r.Uint(math.MaxUint32))
	f.GID = uint32(r.Uint(math.MaxUint32))
	f.MTime = r.Int()
	f.Xattrs = Xattrs(r.Bytes(MaxXattrs))
	return f
}

// WriteSignature writes s.
func WriteSignature(w *wire.Writer, s Signature) {
	w.Array(14)
	w.Uint(uint64(s.Type))
	writeFacts(w, s.Facts)
	w.Int(s.Size)
	w.Uint(uint64(s.Hash.Algorithm))
	if s.Hash.Algorithm == NoHash {
		w.Bytes(nil)
	} else {
		w.Bytes(s.Hash.Sum[:])
	}
	w.String(s.Target)
	w.Uint(s.Rdev)
	WriteDot(w, s.Group)
	if s.Kept.Set {
		w.Array(5)
		writeFacts(w, s.Kept.Facts)
	} else {
		w.Array(0)
	}
	w.Uint(0) // reserved; must be 0
}

// ReadSignature reads a signature and refuses one that no disk could show.
func ReadSignature(r *wire.Reader) (s Signature) {
	r.Tuple(14)
	s.Type = Type(r.Uint(uint64(BlockDevice)))
	s.Facts = readFacts(r)
	if s.Size = r.Int(); s.Size < 0 {
		r.Fail("size %d", s.Size)
	}
	s.Hash.Algorithm = Algorithm(r.Uint(uint64(SHA256)))
	if s.Hash.Algorithm == NoHash {
		if len(r.Bytes(0)) != 0 {
			r.Fail("a hash without algorithm")
		}
	} else {
		r.Fixed(s.Hash.Sum[:])
	}
	s.Target = string(r.Bytes(MaxPath))
	s.Rdev = r.Uint(math.MaxUint64)
	s.Group = ReadDot(r)
	switch n := r.Array(5); n {
	case 0:
	case 5:
		s.Kept = Kept{Set: true, Facts: readFacts(r)}
	default:
		r.Fail("kept facts of %d", n)
	}
	r.Uint(0)
	s.check(r)
	return s
}

// check refuses facts that do not belong to the type: equality of signatures is
// equality of all fields, so a stray one would never converge.
func (s Signature) check(r *wire.Reader) {
	if r.Err() != nil {
		return
	}
	bare := s.Bare()
	var want Signature
	want.Type = s.Type
	switch s.Type {
	case Unknown:
		return // the zero signature; a version refuses it
	case Absent:
	case File:
		want.Facts, want.Size, want.Hash = s.Facts, s.Size, s.Hash
		if s.Hash.Algorithm == NoHash {
			r.Fail("file without a hash")
		}
	case Symlink:
		want.Facts, want.Target = s.Facts, s.Target
		if s.Target == "" || s.Mode != 0 {
			r.Fail("symlink with target %q and mode %o", s.Target, s.Mode)
		}
	case CharDevice, BlockDevice:
		want.Facts, want.Rdev = s.Facts, s.Rdev
	default:
		want.Facts = s.Facts
	}
	if bare != want {
		r.Fail("facts that no %s has", s.Type)
	}
	for i := range s.Target {
		if s.Target[i] == 0 {
			r.Fail("NUL in a link target")
		}
	}
	for _, x := range []Xattrs{s.Xattrs, s.Kept.Xattrs} {
		if _, err := DecodeXattrs(x); err != nil {
			r.Fail("%v", err)
		}
	}
}

// WriteVersion writes v.
func WriteVersion(w *wire.Writer, v Version) {
	w.Array(4)
	WriteDot(w, v.Dot)
	WriteSignature(w, v.Sig)
	w.Int(v.Stamp)
	if v.Case == (Case{}) {
		w.Bytes(nil)
	} else {
		w.Bytes(v.Case[:])
	}
}

// ReadVersion reads a version: it has a dot, and its type is not Unknown.
func ReadVersion(r *wire.Reader) (v Version) {
	v = readVersion(r)
	if r.Err() == nil && (v.Dot.IsZero() || v.Sig.Type == Unknown) {
		r.Fail("version %v of type %s", v.Dot, v.Sig.Type)
	}
	return v
}

func readVersion(r *wire.Reader) (v Version) {
	r.Tuple(4)
	v.Dot = ReadDot(r)
	v.Sig = ReadSignature(r)
	v.Stamp = r.Int()
	if b := r.Bytes(len(v.Case)); len(b) != 0 {
		if len(b) != len(v.Case) {
			r.Fail("case of %d bytes", len(b))
		}
		copy(v.Case[:], b)
	}
	return v
}

func writeVersions(w *wire.Writer, vs []Version) {
	w.Array(len(vs))
	for _, v := range vs {
		WriteVersion(w, v)
	}
}

// readVersions reads a listing's versions: greatest first, no dot twice.
func readVersions(r *wire.Reader) []Version {
	n := r.Array(MaxVersions)
	if n == 0 {
		return nil
	}
	vs := make([]Version, 0, min(n, 8))
	for range n {
		v := ReadVersion(r)
		if r.Err() != nil {
			return nil
		}
		if k := len(vs); k > 0 && vs[k-1].Compare(v) <= 0 {
			r.Fail("versions out of order")
			return nil
		}
		vs = append(vs, v)
	}
	return vs
}

// WriteListing writes l.
func WriteListing(w *wire.Writer, l Listing) {
	w.Array(2)
	w.String(string(l.Path))
	writeVersions(w, l.Versions)
}

// ReadListing reads a listing.
func ReadListing(r *wire.Reader) (l Listing) {
	r.Tuple(2)
	l.Path = readPath(r)
	l.Versions = readVersions(r)
	return l
}

func readPath(r *wire.Reader) Path {
	b := r.Bytes(MaxPath)
	if r.Err() != nil {
		return ""
	}
	p, err := ParsePath(string(b))
	if err != nil {
		r.Fail("%v", err)
	}
	return p
}

// ReadPath reads a path.
func ReadPath(r *wire.Reader) Path { return readPath(r) }

// WriteKnowledge writes k, actors in order.
func WriteKnowledge(w *wire.Writer, k Knowledge) {
	w.Array(2 * len(k))
	for _, a := range k.Actors() {
		writeActor(w, a)
		w.Uint(k[a])
	}
}

// ReadKnowledge reads a knowledge: actors in order, none twice.
func ReadKnowledge(r *wire.Reader) Knowledge {
	n := r.Array(2 * MaxActors)
	if n%2 != 0 {
		r.Fail("knowledge of %d", n)
	}
	k := make(Knowledge, min(n/2, 64))
	var last Actor
	for i := range n / 2 {
		a := readActor(r)
		seq := r.Uint(MaxSeq)
		if i > 0 && last.Compare(a) >= 0 {
			r.Fail("actors out of order")
		}
		if r.Err() != nil {
			return nil
		}
		k[a], last = seq, a
	}
	return k
}

// What is held is mostly listed, and what is shown mostly as held; a record then says
// so instead of repeating it. A form of held beside the index in the listing:
const (
	heldNone = 0               // the zero version
	heldFull = MaxVersions + 1 // written in full; between them, the index plus 1
)

// EncodeRecord writes a record for the index; the path is its key and not in it.
func EncodeRecord(rec Record) []byte {
	w := wire.NewWriter()
	w.Array(6)
	writeVersions(w, rec.Listed)
	w.Uint(uint64(rec.Held.Form))
	held := uint64(heldFull)
	if rec.Held.Version == (Version{}) {
		held = heldNone
	} else if i := slices.Index(rec.Listed, rec.Held.Version); i >= 0 {
		held = uint64(i) + 1
	}
	w.Uint(held)
	if held == heldFull {
		w.Array(1)
		WriteVersion(w, rec.Held.Version)
	} else {
		w.Array(0)
	}
	if rec.Shown == rec.Held.Version.Sig.Bare() {
		w.Array(0)
	} else {
		w.Array(1)
		WriteSignature(w, rec.Shown)
	}
	m := rec.Mark
	w.Array(8)
	w.Int(m.CTime)
	w.Int(m.MTime)
	w.Uint(m.Ino)
	w.Uint(m.Dev)
	w.Int(m.Size)
	w.Uint(uint64(m.Mode))
	w.Uint(uint64(m.Links))
	w.Int(m.Looked)
	return w.Frame()
}

// DecodeRecord reads what EncodeRecord wrote.
func DecodeRecord(p Path, b []byte) (Record, error) {
	r := wire.NewReader(b)
	rec := Record{Path: p}
	r.Tuple(6)
	rec.Listed = readVersions(r)
	rec.Held.Form = Form(r.Uint(uint64(Local)))
	rec.Held.Version = readHeld(r, rec.Listed)
	if r.Array(1) == 0 {
		rec.Shown = rec.Held.Version.Sig.Bare()
	} else {
		rec.Shown = ReadSignature(r)
	}
	m := &rec.Mark
	r.Tuple(8)
	m.CTime, m.MTime = r.Int(), r.Int()
	m.Ino, m.Dev = r.Uint(math.MaxUint64), r.Uint(math.MaxUint64)
	m.Size = r.Int()
	m.Mode = uint32(r.Uint(math.MaxUint32))
	m.Links = uint32(r.Uint(math.MaxUint32))
	m.Looked = r.Int()
	if r.Err() != nil {
		return Record{}, r.Err()
	}
	return rec, nil
}

func readHeld(r *wire.Reader, listed []Version) (v Version) {
	held := r.Uint(heldFull)
	full := r.Array(1) == 1
	switch {
	case full != (held == heldFull):
		r.Fail("held version %d", held)
	case full:
		v = readVersion(r)
	case held == heldNone:
	case held > uint64(len(listed)):
		r.Fail("held version %d of %d", held, len(listed))
	default:
		v = listed[held-1]
	}
	return v
}
