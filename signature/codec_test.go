package signature

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/clsync/clsync/signature/wire"
)

func encoded[T any](write func(*wire.Writer, T), v T) []byte {
	w := wire.NewWriter()
	write(w, v)
	return w.Frame()
}

// roundTrip draws values and holds them against what is read back; a second
// writing must give the same bytes.
func roundTrip[T any](t *testing.T, draw *rapid.Generator[T], write func(*wire.Writer, T), read func(*wire.Reader) T) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		v := draw.Draw(t, "value")
		b := encoded(write, v)
		r := wire.NewReader(b)
		got := read(r)
		if d := cmp.Diff(v, got); d != "" || r.Err() != nil {
			t.Fatalf("%v\n%s", r.Err(), d)
		}
		if !bytes.Equal(encoded(write, got), b) {
			t.Fatal("written otherwise the second time")
		}
	})
}

func TestRoundTrips(t *testing.T) {
	t.Run("dot", func(t *testing.T) {
		roundTrip(t, rapid.OneOf(rapid.Custom(drawDot), rapid.Just(Dot{})), WriteDot, ReadDot)
	})
	t.Run("signature", func(t *testing.T) {
		roundTrip(t, rapid.Custom(drawSignature), WriteSignature, ReadSignature)
	})
	t.Run("version", func(t *testing.T) {
		roundTrip(t, rapid.Custom(drawVersion), WriteVersion, ReadVersion)
	})
	t.Run("listing", func(t *testing.T) {
		roundTrip(t, rapid.Custom(func(t *rapid.T) Listing {
			return Listing{genPath.Draw(t, "path"), genListed.Draw(t, "listed")}
		}), WriteListing, ReadListing)
	})
	t.Run("knowledge", func(t *testing.T) {
		roundTrip(t, genKnowledge, WriteKnowledge, ReadKnowledge)
	})
	t.Run("record", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			r := genRecord.Draw(t, "record")
			got, err := DecodeRecord(r.Path, EncodeRecord(r))
			if d := cmp.Diff(r, got); d != "" || err != nil {
				t.Fatalf("%v\n%s", err, d)
			}
		})
	})
}

func file() Version {
	return Version{
		Dot:   Dot{Actor{nodeA, 1}, 1},
		Sig:   Signature{Type: File, Facts: Facts{Mode: 0o644}, Hash: Hash{Algorithm: SHA256}},
		Stamp: 5,
	}
}

// What no node would write is refused, whoever signed it.
func TestReadVersionRefuses(t *testing.T) {
	if r := wire.NewReader(encoded(WriteVersion, file())); ReadVersion(r) != file() || r.Err() != nil {
		t.Fatalf("a plain file: %v", r.Err())
	}
	for name, change := range map[string]func(*Version){
		"no dot":                  func(v *Version) { v.Dot = Dot{} },
		"seq 0":                   func(v *Version) { v.Dot.Seq = 0 },
		"an absurd seq":           func(v *Version) { v.Dot.Seq = MaxSeq + 1 },
		"an unknown type":         func(v *Version) { v.Sig = Signature{} },
		"a type that is none":     func(v *Version) { v.Sig.Type = BlockDevice + 1 },
		"type bits in the mode":   func(v *Version) { v.Sig.Mode = 0o100644 },
		"a file without a hash":   func(v *Version) { v.Sig.Hash = Hash{} },
		"a hash of another kind":  func(v *Version) { v.Sig.Hash.Algorithm = SHA256 + 1 },
		"a negative size":         func(v *Version) { v.Sig.Size = -1 },
		"a file with a target":    func(v *Version) { v.Sig.Target = "x" },
		"a file with a device":    func(v *Version) { v.Sig.Rdev = 1 },
		"a tombstone with a mode": func(v *Version) { v.Sig = Signature{Type: Absent, Facts: Facts{Mode: 1}} },
		"a folder with a hash":    func(v *Version) { v.Sig.Type = Folder },
		"a link without a target": func(v *Version) { v.Sig = Signature{Type: Symlink} },
		"a link with a mode":      func(v *Version) { v.Sig = Signature{Type: Symlink, Target: "x", Facts: Facts{Mode: 0o777}} },
		"a link to NUL":           func(v *Version) { v.Sig = Signature{Type: Symlink, Target: "a\x00"} },
		"a target too long":       func(v *Version) { v.Sig = Signature{Type: Symlink, Target: strings.Repeat("x", MaxPath+1)} },
		"attributes out of order": func(v *Version) { v.Sig.Xattrs = xattrsOf("b", "a") },
		"an attribute twice":      func(v *Version) { v.Sig.Xattrs = xattrsOf("a", "a") },
		"attributes cut off":      func(v *Version) { v.Sig.Xattrs = xattrsOf("a")[:3] },
		"too many attributes":     func(v *Version) { v.Sig.Xattrs = Xattrs(strings.Repeat("x", MaxXattrs+1)) },
		"a group of seq 0":        func(v *Version) { v.Sig.Group = Dot{Actor: Actor{nodeA, 1}} },
		"kept type bits":          func(v *Version) { v.Sig.Kept = Kept{true, Facts{Mode: 1 << 12}} },
		"kept odd attributes":     func(v *Version) { v.Sig.Kept = Kept{true, Facts{Xattrs: "x"}} },
	} {
		t.Run(name, func(t *testing.T) {
			v := file()
			change(&v)
			r := wire.NewReader(encoded(WriteVersion, v))
			if got := ReadVersion(r); !errors.Is(r.Err(), wire.ErrFrame) {
				t.Errorf("read %+v", got)
			}
		})
	}
}

// xattrsOf encodes names in the order given, as EncodeXattrs would not.
func xattrsOf(names ...string) (e Xattrs) {
	for _, n := range names {
		e += EncodeXattrs([]Xattr{{Name: n, Value: "v"}})
	}
	return e
}

func TestReadListingRefuses(t *testing.T) {
	v, w := file(), file()
	w.Stamp = 6
	w.Dot.Seq = 2
	many := make([]Version, MaxVersions+1)
	for i := range many {
		many[i] = file()
		many[i].Dot.Seq = uint64(len(many) - i)
	}
	good := encoded(WriteListing, Listing{"a", []Version{w, v}})
	if r := wire.NewReader(good); len(ReadListing(r).Versions) != 2 || r.Err() != nil {
		t.Fatal(r.Err())
	}
	for name, b := range map[string][]byte{
		"out of the root":     encoded(WriteListing, Listing{"../a", nil}),
		"our own folder":      encoded(WriteListing, Listing{".clsync/x", nil}),
		"no path":             encoded(WriteListing, Listing{"", nil}),
		"least first":         encoded(WriteListing, Listing{"a", []Version{v, w}}),
		"a dot twice":         encoded(WriteListing, Listing{"a", []Version{v, v}}),
		"more than may be":    encoded(WriteListing, Listing{"a", many}),
		"two billion":         {0x92, 0xc4, 1, 'a', 0xdd, 0x7f, 0xff, 0xff, 0xff},
		"text for a path":     {0x92, 0xa1, 'a', 0x90},
		"one field more":      append([]byte{0x93}, append(bytes.Clone(good[1:]), 0)...),
		"one byte more":       append(bytes.Clone(good), 0),
		"one byte less":       good[:len(good)-1],
		"a hundred deep":      bytes.Repeat([]byte{0x91}, 100),
		"a number":            {1},
		"nothing":             nil,
		"versions of numbers": {0x92, 0xc4, 1, 'a', 0x92, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := wire.NewReader(b)
			if got := ReadListing(r); !errors.Is(r.Err(), wire.ErrFrame) {
				t.Errorf("read %+v", got)
			}
		})
	}
}

func TestReadKnowledgeRefuses(t *testing.T) {
	write := func(as ...any) []byte {
		w := wire.NewWriter()
		w.Array(len(as))
		for _, a := range as {
			switch a := a.(type) {
			case Actor:
				writeActor(w, a)
			case int:
				w.Uint(uint64(a))
			}
		}
		return w.Frame()
	}
	a, b := Actor{nodeA, 1}, Actor{nodeB, 1}
	many := Knowledge{}
	for i := range MaxActors + 1 {
		many[Actor{nodeA, uint64(i)}] = 1
	}
	if r := wire.NewReader(write(a, 1, b, 2)); !ReadKnowledge(r).Equal(Knowledge{a: 1, b: 2}) || r.Err() != nil {
		t.Fatal(r.Err())
	}
	for name, frame := range map[string][]byte{
		"odd":             write(a),
		"an actor twice":  write(a, 2, a, 1),
		"out of order":    write(b, 1, a, 1),
		"an absurd seq":   write(a, MaxSeq+1),
		"too many actors": encoded(WriteKnowledge, many),
	} {
		t.Run(name, func(t *testing.T) {
			r := wire.NewReader(frame)
			if got := ReadKnowledge(r); !errors.Is(r.Err(), wire.ErrFrame) {
				t.Errorf("read %v", got)
			}
		})
	}
}

func TestXattrsAreCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		xs := rapid.SliceOfNDistinct(genXattr, 0, 5, func(x Xattr) string { return x.Name }).Draw(t, "xattrs")
		e := EncodeXattrs(xs)
		mixed := rapid.Permutation(xs).Draw(t, "in another order")
		if got := EncodeXattrs(mixed); got != e {
			t.Fatalf("%q and %q", e, got)
		}
		back, err := DecodeXattrs(e)
		if err != nil || len(back) != len(xs) || EncodeXattrs(back) != e {
			t.Fatalf("%v, %v", back, err)
		}
		for _, x := range xs {
			found := false
			for _, y := range back {
				found = found || x == y
			}
			if !found {
				t.Fatalf("%+v is lost", x)
			}
		}
	})
}

func FuzzDecodeXattrs(f *testing.F) {
	f.Add("")
	f.Add(string(xattrsOf("a", "b")))
	f.Add(string(xattrsOf("b", "a")))
	f.Add("\x00\x01a\xff\xff\xff\xff")
	f.Add("\x00\x00\x00\x00\x00\x00")
	f.Fuzz(func(t *testing.T, s string) {
		xs, err := DecodeXattrs(Xattrs(s))
		if err != nil {
			return
		}
		if got := EncodeXattrs(xs); string(got) != s {
			t.Fatalf("%q is another encoding of %q", s, got)
		}
	})
}

// FuzzReadListing: whatever is accepted is a listing that can be written, read back
// the same, and does not lead out of the root.
func FuzzReadListing(f *testing.F) {
	f.Add(encoded(WriteListing, Listing{"a/b", []Version{file()}}))
	f.Add(encoded(WriteListing, Listing{"\xff", nil}))
	f.Add(encoded(WriteListing, Listing{"l", []Version{{Dot: file().Dot, Sig: Signature{Type: Symlink, Target: "/x"}, Case: Case{1}}}}))
	f.Add(encoded(WriteListing, Listing{"d", []Version{{Dot: file().Dot, Sig: Signature{Type: Absent, Kept: Kept{true, Facts{Mode: 0o755}}}}}}))
	f.Add([]byte{0x92, 0xc4, 1, 'a', 0xdd, 0x7f, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := wire.NewReader(b)
		l := ReadListing(r)
		if r.Err() != nil {
			return
		}
		if _, err := ParsePath(string(l.Path)); err != nil {
			t.Fatal(err)
		}
		again := wire.NewReader(encoded(WriteListing, l))
		if d := cmp.Diff(l, ReadListing(again)); d != "" || again.Err() != nil {
			t.Fatalf("%v\n%s", again.Err(), d)
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(EncodeRecord(Record{}))
	v := file()
	f.Add(EncodeRecord(Record{Listed: []Version{v}, Held: Held{v, Plain}, Shown: v.Sig, Mark: StatMark{Ino: math.MaxUint64, CTime: -1}}))
	f.Add(EncodeRecord(Record{Held: Held{v, Implied}, Shown: Signature{Type: Folder}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := DecodeRecord("p", b)
		if err != nil {
			if d := cmp.Diff(rec, Record{}); d != "" {
				t.Fatalf("an answer beside %v:\n%s", err, d)
			}
			return
		}
		got, err := DecodeRecord("p", EncodeRecord(rec))
		if d := cmp.Diff(rec, got); d != "" || err != nil {
			t.Fatalf("%v\n%s", err, d)
		}
	})
}

func BenchmarkEncodeRecord(b *testing.B) {
	v := file()
	r := Record{Path: "p", Listed: []Version{v}, Held: Held{v, Plain}, Shown: v.Sig}
	b.ReportAllocs()
	for b.Loop() {
		EncodeRecord(r)
	}
}

func BenchmarkDecodeRecord(b *testing.B) {
	v := file()
	e := EncodeRecord(Record{Path: "p", Listed: []Version{v}, Held: Held{v, Plain}, Shown: v.Sig})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeRecord("p", e); err != nil {
			b.Fatal(err)
		}
	}
}
