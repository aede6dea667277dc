package message_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/wire"
	"github.com/clsync/clsync/transfer/message"
)

func drawActor(t *rapid.T) (a signature.Actor) {
	copy(a.Node[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "node"))
	a.Incarnation = rapid.Uint64().Draw(t, "incarnation")
	return a
}

func drawDot(t *rapid.T) signature.Dot {
	return signature.Dot{Actor: drawActor(t), Seq: rapid.Uint64Range(1, signature.MaxSeq).Draw(t, "seq")}
}

func drawKnowledge(t *rapid.T) signature.Knowledge {
	k := signature.Knowledge{}
	for range rapid.IntRange(0, 5).Draw(t, "actors") {
		k[drawActor(t)] = rapid.Uint64Range(0, signature.MaxSeq).Draw(t, "seq")
	}
	return k
}

func drawTree(t *rapid.T) string {
	return rapid.StringMatching(`[A-Za-z0-9_][A-Za-z0-9._-]{0,63}`).Draw(t, "tree")
}

func drawPath(t *rapid.T) signature.Path {
	s := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "path")
	p, err := signature.ParsePath(string(s))
	if err != nil {
		return signature.Path(fmt.Sprintf("p%x", s))
	}
	return p
}

func drawVersion(t *rapid.T) signature.Version {
	v := signature.Version{Dot: drawDot(t), Stamp: rapid.Int64().Draw(t, "stamp")}
	facts := func() signature.Facts {
		return signature.Facts{
			Mode: rapid.Uint32Range(0, 0o7777).Draw(t, "mode"), UID: rapid.Uint32().Draw(t, "uid"), GID: rapid.Uint32().Draw(t, "gid"),
			MTime:  rapid.Int64().Draw(t, "mtime"),
			Xattrs: signature.EncodeXattrs([]signature.Xattr{{Name: "user.x", Value: rapid.StringN(0, 9, 30).Draw(t, "value")}}),
		}
	}
	switch v.Sig.Type = rapid.SampledFrom([]signature.Type{signature.Absent, signature.File, signature.Folder, signature.Symlink, signature.BlockDevice}).Draw(t, "type"); v.Sig.Type {
	case signature.Absent:
		v.Sig.Kept = signature.Kept{Set: true, Facts: facts()}
	case signature.File:
		v.Sig.Facts, v.Sig.Size = facts(), rapid.Int64Min(0).Draw(t, "size")
		v.Sig.Hash.Algorithm = signature.SHA256
		v.Sig.Group = drawDot(t)
	case signature.Symlink:
		v.Sig.Facts, v.Sig.Target = facts(), "x"+rapid.StringMatching(`[^\x00]{0,20}`).Draw(t, "target")
		v.Sig.Mode = 0
	case signature.BlockDevice:
		v.Sig.Facts, v.Sig.Rdev = facts(), rapid.Uint64().Draw(t, "rdev")
	default:
		v.Sig.Facts = facts()
	}
	return v
}

func drawListing(t *rapid.T) signature.Listing {
	l := signature.Listing{Path: drawPath(t)}
	seen := map[signature.Dot]bool{}
	for range rapid.IntRange(1, 4).Draw(t, "versions") {
		if v := drawVersion(t); !seen[v.Dot] {
			seen[v.Dot] = true
			l.Versions = append(l.Versions, v)
		}
	}
	signature.SortVersions(l.Versions)
	return l
}

// What is written is read back as it was.
func TestRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		same := func(want, got any, err error) {
			t.Helper()
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%v:\n got %+v\nwant %+v", err, got, want)
			}
		}
		tree, batch := drawTree(t), rapid.Uint64().Draw(t, "batch")
		h := message.Head{Tree: tree, Known: drawKnowledge(t), Landed: drawKnowledge(t), ReceiveOnly: rapid.Bool().Draw(t, "ro"), Begin: rapid.Bool().Draw(t, "begin")}
		h2, err := message.DecodeHead(h.Encode())
		same(h, h2, err)
		a := message.Ack{Tree: tree, Cut: batch}
		a2, err := message.DecodeAck(a.Encode())
		same(a, a2, err)
		w := message.Want{Tree: tree, Batch: batch, Lane: rapid.Uint8Range(0, message.MaxLane).Draw(t, "lane")}
		for i := range rapid.IntRange(1, 5).Draw(t, "items") {
			it := message.Item{Path: drawPath(t) + signature.Path(fmt.Sprint(i)), Dot: drawDot(t), Size: rapid.Int64Min(0).Draw(t, "size")}
			it.Hash = signature.Hash{Algorithm: signature.SHA256, Sum: [32]byte{byte(i)}}
			w.Items = append(w.Items, it)
		}
		w2, err := message.DecodeWant(w.Encode())
		same(w, w2, err)
		d := message.Done{Tree: tree, Batch: batch, Answers: []message.Answer{message.Sealed, message.NotHere, message.Failed}}
		d2, err := message.DecodeDone(d.Encode())
		same(d, d2, err)
		p := message.Push{Tree: tree, Batch: batch, Lane: 1, Argv: []string{"batch", "", "\xff \x00"}}
		p2, err := message.DecodePush(p.Encode())
		same(p, p2, err)
		for _, b := range [][]byte{h.Encode(), a.Encode(), w.Encode(), d.Encode(), p.Encode()} {
			name, err := message.TreeOf(b)
			same(tree, name, err)
		}
	})
}

// A cut comes out of its pages as it went in, and every page fits into a frame.
func TestPages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in []signature.Listing
		one := drawListing(t)
		for i := range rapid.SampledFrom([]int{0, 1, 2, 3000, 20_000}).Draw(t, "listings") {
			one.Path = signature.Path(fmt.Sprintf("%06d", i))
			in = append(in, one)
		}
		k := drawKnowledge(t)
		var out []signature.Listing
		pages, ended := uint64(0), false
		err := message.Pages("tree", 9, in, k, func(b []byte) error {
			p, err := message.DecodeCutPage(b)
			if err != nil || ended || p.Page != pages || p.Cut != 9 || len(b) > 1<<20 {
				t.Fatalf("page %d of %d bytes: %+v, %v", pages, len(b), p.Page, err)
			}
			pages++
			out = append(out, p.Listings...)
			if ended = p.Last; ended && !p.Knowledge.Equal(k) {
				t.Fatal("knowledge differs")
			}
			return nil
		})
		if err != nil || !ended || len(out) != len(in) || len(in) > 0 && !reflect.DeepEqual(in, out) {
			t.Fatalf("%d listings in, %d out, ended %v: %v", len(in), len(out), ended, err)
		}
	})
	broken := errors.New("broken")
	if err := message.Pages("tree", 1, nil, nil, func([]byte) error { return broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestTreeNames(t *testing.T) {
	for _, good := range []string{"a", "www", "etc-1.x_y", "_", "0"} {
		if !message.TreeName(good) {
			t.Errorf("%q refused", good)
		}
	}
	for _, bad := range []string{"", ".", "..", ".a", "-a", "a/b", "a b", "a\x00", "é", string(bytes.Repeat([]byte("a"), 65))} {
		if message.TreeName(bad) {
			t.Errorf("%q accepted", bad)
		}
		if _, err := message.DecodeAck((message.Ack{Tree: bad}).Encode()); !errors.Is(err, wire.ErrFrame) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// What a page may not be.
func TestBadPages(t *testing.T) {
	l, k := documented()
	page := func(last bool, k signature.Knowledge, ls ...signature.Listing) []byte {
		w := wire.NewWriter()
		w.Array(6)
		w.String("tree")
		w.Uint(1)
		w.Uint(0)
		w.Bool(last)
		w.Array(len(ls))
		for _, l := range ls {
			signature.WriteListing(w, l)
		}
		signature.WriteKnowledge(w, k)
		return w.Frame()
	}
	for name, b := range map[string][]byte{
		"no version":      page(true, k, signature.Listing{Path: "p"}),
		"early knowledge": page(false, k, l),
		"empty":           page(false, nil),
		"above":           page(true, k, signature.Listing{Path: "../p", Versions: l.Versions}),
		"own folder":      page(true, k, signature.Listing{Path: ".clsync/p", Versions: l.Versions}),
		"twice":           page(true, k, signature.Listing{Path: "p", Versions: append(l.Versions, l.Versions...)}),
		"more":            append(page(true, k, l), 0),
	} {
		if p, err := message.DecodeCutPage(b); !errors.Is(err, wire.ErrFrame) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	if _, err := message.DecodeCutPage(page(false, nil, l)); err != nil {
		t.Error(err)
	}
}
