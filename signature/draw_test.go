package signature

import "pgregory.net/rapid"

// Whatever the rules allow, drawn at random; paths, targets and attributes of any
// bytes, numbers to their ends.

func drawActor(t *rapid.T) Actor {
	return Actor{
		Node:        NodeID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "node")),
		Incarnation: rapid.Uint64().Draw(t, "incarnation"),
	}
}

func drawDot(t *rapid.T) Dot {
	return Dot{drawActor(t), rapid.Uint64Range(1, MaxSeq).Draw(t, "seq")}
}

var genName = rapid.Custom(func(t *rapid.T) string {
	b := rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "name")
	for i := range b {
		if b[i] == 0 || b[i] == '/' {
			b[i] = '\xff'
		}
	}
	return string(b)
})

var genPath = rapid.Custom(func(t *rapid.T) Path {
	p := genName.Draw(t, "top")
	for range rapid.IntRange(0, 3).Draw(t, "depth") {
		p += "/" + genName.Draw(t, "name")
	}
	return Path(p)
}).Filter(func(p Path) bool {
	_, err := ParsePath(string(p))
	return err == nil
})

var genXattr = rapid.Custom(func(t *rapid.T) Xattr {
	return Xattr{
		Name:  genName.Draw(t, "xattr"),
		Value: string(rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "value")),
	}
})

func drawFacts(t *rapid.T) Facts {
	xs := rapid.SliceOfNDistinct(genXattr, 0, 3, func(x Xattr) string { return x.Name }).Draw(t, "xattrs")
	return Facts{
		Mode:   rapid.Uint32Range(0, 0o7777).Draw(t, "mode"),
		UID:    rapid.Uint32().Draw(t, "uid"),
		GID:    rapid.Uint32().Draw(t, "gid"),
		MTime:  rapid.Int64().Draw(t, "mtime"),
		Xattrs: EncodeXattrs(xs),
	}
}

func drawSignature(t *rapid.T) Signature {
	s := Signature{Type: Type(rapid.IntRange(int(Absent), int(BlockDevice)).Draw(t, "type"))}
	if s.Type != Absent {
		s.Facts = drawFacts(t)
	}
	switch s.Type {
	case File:
		s.Size = rapid.Int64Min(0).Draw(t, "size")
		s.Hash = Hash{SHA256, [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "sum"))}
	case Symlink:
		s.Mode = 0
		s.Target = "../" + genName.Draw(t, "target")
	case CharDevice, BlockDevice:
		s.Rdev = rapid.Uint64().Draw(t, "rdev")
	}
	if rapid.Bool().Draw(t, "grouped") {
		s.Group = drawDot(t)
	}
	if rapid.Bool().Draw(t, "keeps") {
		s.Kept = Kept{true, drawFacts(t)}
	}
	return s
}

func drawVersion(t *rapid.T) Version {
	v := Version{Dot: drawDot(t), Sig: drawSignature(t), Stamp: rapid.Int64().Draw(t, "stamp")}
	if rapid.Bool().Draw(t, "verdict") {
		v.Case = Case(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "case"))
	}
	return v
}

var genListed = rapid.Custom(func(t *rapid.T) []Version {
	vs := rapid.SliceOfNDistinct(rapid.Custom(drawVersion), 0, 3, func(v Version) Dot { return v.Dot }).Draw(t, "versions")
	SortVersions(vs)
	return append([]Version(nil), vs...)
})

var genRecord = rapid.Custom(func(t *rapid.T) Record {
	r := Record{Path: genPath.Draw(t, "path"), Listed: genListed.Draw(t, "listed")}
	r.Held.Form = Form(rapid.IntRange(0, int(Local)).Draw(t, "form"))
	switch rapid.IntRange(0, 2).Draw(t, "held") {
	case 1:
		r.Held.Version = drawVersion(t)
	case 2:
		if len(r.Listed) > 0 {
			r.Held.Version = rapid.SampledFrom(r.Listed).Draw(t, "one of them")
		}
	}
	r.Shown = r.Held.Version.Sig.Bare()
	if rapid.Bool().Draw(t, "shows another") {
		r.Shown = drawSignature(t)
	}
	if rapid.Bool().Draw(t, "marked") {
		r.Mark = StatMark{
			CTime: rapid.Int64().Draw(t, "ctime"), MTime: rapid.Int64().Draw(t, "mtime"),
			Ino: rapid.Uint64().Draw(t, "ino"), Dev: rapid.Uint64().Draw(t, "dev"),
			Size: rapid.Int64().Draw(t, "size"), Mode: rapid.Uint32().Draw(t, "mode"),
			Links: rapid.Uint32().Draw(t, "links"), Looked: rapid.Int64().Draw(t, "looked"),
		}
	}
	return r
})

// genKnowledge draws from few actors, so that two of them have something in common.
var genKnowledge = rapid.Custom(func(t *rapid.T) Knowledge {
	k := Knowledge{}
	for range rapid.IntRange(0, 4).Draw(t, "actors") {
		a := Actor{Node: NodeID{rapid.ByteRange(0, 2).Draw(t, "node")}, Incarnation: rapid.Uint64Range(0, 1).Draw(t, "incarnation")}
		k[a] = rapid.OneOf(rapid.Uint64Range(0, 5), rapid.Just(uint64(MaxSeq))).Draw(t, "seq")
	}
	return k
})
