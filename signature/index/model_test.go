package index

import (
	"encoding/hex"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/clsync/clsync/signature"
)

// An Index is what the core asks of both.
type Index interface {
	Get(p signature.Path) (signature.Record, bool)
	Put(r signature.Record)
	Ascend(dir signature.Path, yield func(signature.Record) bool)
	Children(dir signature.Path, yield func(signature.Record) bool)
	Since(k signature.Knowledge, yield func(signature.Record) bool)
	ByHash(h signature.Hash, yield func(signature.Path) bool)
	ByInode(dev, ino uint64, yield func(signature.Path) bool)
	Len() int
	PutLedger([]LedgerEntry)
	ClearLedger([]signature.Path)
	Ledger(yield func(LedgerEntry) bool)
	Meta() Meta
	Commit(Meta) error
	Discard()
	Err() error
}

var (
	_ Index = (*Memory)(nil)
	_ Index = (*Store)(nil)
)

// fast is where a sync costs nothing, if there is such a place.
var fast = func() string {
	if _, err := os.Stat("/dev/shm"); err == nil {
		return "/dev/shm"
	}
	return ""
}()

var here = Proof{BootID: "this boot", Mount: 7}

// Few names and values, so that histories collide in them; among them those whose
// byte order is not the order of the tree, and bytes that are no text.
var (
	genPath = rapid.Custom(func(t *rapid.T) signature.Path {
		name := rapid.SampledFrom([]string{"a", "a-b", "a.", "a0", "b", "\xff", "\xff\xfe", "é\n"})
		p := name.Draw(t, "name")
		for range rapid.IntRange(0, 2).Draw(t, "depth") {
			p += "/" + name.Draw(t, "name")
		}
		return signature.Path(p)
	})
	genActor = rapid.SampledFrom([]signature.Actor{
		{Node: signature.NodeID{1}, Incarnation: 1},
		{Node: signature.NodeID{1}, Incarnation: 1 << 63},
		{Node: signature.NodeID{1}, Incarnation: 1<<63 | 0xfeff},
		{Node: signature.NodeID{1}, Incarnation: 1<<63 | 0xff00},
		{Node: signature.NodeID{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, Incarnation: 1<<64 - 1},
	})
	genSeq  = rapid.OneOf(rapid.Uint64Range(1, 12), rapid.Just(uint64(signature.MaxSeq)))
	genHash = rapid.Custom(func(t *rapid.T) signature.Hash {
		h := signature.Hash{Algorithm: signature.SHA256}
		h.Sum[0] = rapid.ByteRange(0, 2).Draw(t, "sum")
		h.Sum[20] = rapid.ByteRange(0, 1).Draw(t, "beyond the key")
		return h
	})
	genKnowledge = rapid.Custom(func(t *rapid.T) signature.Knowledge {
		k := signature.Knowledge(rapid.MapOfN(genActor, rapid.OneOf(rapid.Uint64Range(0, 13), rapid.Just(uint64(1<<64-1))), 0, 5).Draw(t, "knowledge"))
		return k
	})
)

func drawSignature(t *rapid.T) signature.Signature {
	f := signature.Facts{Mode: 0o644, MTime: rapid.Int64().Draw(t, "mtime"), Xattrs: signature.EncodeXattrs([]signature.Xattr{{Name: "user.a", Value: "b"}})}
	switch rapid.IntRange(0, 3).Draw(t, "type") {
	case 0:
		return signature.Signature{Type: signature.Absent, Kept: signature.Kept{Set: true, Facts: f}}
	case 1:
		return signature.Signature{Type: signature.Folder, Facts: f}
	case 2:
		return signature.Signature{Type: signature.Symlink, Facts: signature.Facts{UID: 3}, Target: "\xfe/.."}
	}
	return signature.Signature{Type: signature.File, Facts: f, Size: 5, Hash: genHash.Draw(t, "hash")}
}

func drawVersion(t *rapid.T) signature.Version {
	return signature.Version{
		Dot:   signature.Dot{Actor: genActor.Draw(t, "actor"), Seq: genSeq.Draw(t, "seq")},
		Sig:   drawSignature(t),
		Stamp: rapid.Int64Range(-2, 2).Draw(t, "stamp"),
	}
}

var genRecord = rapid.Custom(func(t *rapid.T) signature.Record {
	r := signature.Record{Path: genPath.Draw(t, "path")}
	seen := map[signature.Dot]bool{}
	for range rapid.IntRange(0, 3).Draw(t, "listed") {
		v := drawVersion(t)
		if !seen[v.Dot] {
			seen[v.Dot] = true
			r.Listed = append(r.Listed, v)
		}
	}
	signature.SortVersions(r.Listed)
	r.Held.Form = signature.Form(rapid.IntRange(0, int(signature.Local)).Draw(t, "form"))
	if r.Held.Form != signature.Nothing {
		r.Held.Version = drawVersion(t)
		if len(r.Listed) > 0 && rapid.Bool().Draw(t, "holds a listed one") {
			r.Held.Version = rapid.SampledFrom(r.Listed).Draw(t, "held")
		}
		r.Shown = r.Held.Version.Sig.Bare()
		if rapid.Bool().Draw(t, "shows another") {
			r.Shown = drawSignature(t)
		}
		r.Mark = signature.StatMark{CTime: 5, Ino: rapid.Uint64Range(0, 2).Draw(t, "ino"), Dev: 3,
			Links: rapid.Uint32Range(0, 3).Draw(t, "links")}
	}
	return r
})

var genMeta = rapid.Custom(func(t *rapid.T) Meta {
	m := Meta{
		TreeID:    rapid.SampledFrom([]string{"", "www"}).Draw(t, "tree"),
		Root:      []byte(rapid.SampledFrom([]string{"", "root"}).Draw(t, "root")),
		Actor:     genActor.Draw(t, "actor"),
		Reserved:  rapid.Uint64().Draw(t, "reserved"),
		Knowledge: signature.Knowledge{},
		Peers:     map[signature.NodeID]signature.Knowledge{},
		Extra:     rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "extra"),
	}
	for id := range rapid.MapOfN(rapid.ByteRange(0, 3), rapid.Bool(), 0, 2).Draw(t, "peers") {
		m.Peers[signature.NodeID{id}] = signature.Knowledge{{Node: signature.NodeID{id}}: rapid.Uint64Range(0, 9).Draw(t, "landed")}
	}
	return m.clone()
})

// dump is all that can be asked of an index.
func dump(x Index, k signature.Knowledge) []string {
	var out []string
	say := func(what string) func(signature.Record) bool {
		return func(r signature.Record) bool {
			out = append(out, what+" "+r.Path.Quote()+" "+hex.EncodeToString(signature.EncodeRecord(r)))
			return true
		}
	}
	sayPath := func(what string) func(signature.Path) bool {
		return func(p signature.Path) bool {
			out = append(out, fmt.Sprintf("%s %q", what, string(p)))
			return true
		}
	}
	for _, dir := range []signature.Path{"", "a", "a-b", "\xff", "a/\xff", "b/b", "nothing"} {
		x.Ascend(dir, say("beneath "+string(dir)))
		x.Children(dir, say("child of "+string(dir)))
		if r, ok := x.Get(dir); ok {
			say("get")(r)
		}
	}
	x.Since(nil, say("all"))
	x.Since(k, say("since"))
	for a := range byte(3) {
		for b := range byte(2) {
			h := signature.Hash{Algorithm: signature.SHA256}
			h.Sum[0], h.Sum[20] = a, b
			x.ByHash(h, sayPath(fmt.Sprintf("hash %d %d", a, b)))
		}
	}
	x.ByHash(signature.Hash{}, sayPath("no hash"))
	for ino := range uint64(3) {
		x.ByInode(3, ino, sayPath(fmt.Sprintf("inode %d", ino)))
	}
	x.Ledger(func(e LedgerEntry) bool {
		out = append(out, fmt.Sprintf("ledger %+v", e))
		return true
	})
	return append(out, fmt.Sprintf("live %d meta %+v err %v", x.Len(), x.Meta(), x.Err()))
}

// Whatever is done to both, Memory and Store answer alike, across commits, crashes
// and restarts; and what a Store wrote always passes its own check.
func TestStoreAnswersAsMemoryDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(fast, "index")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		s := mustOpen(t, dir, here)
		defer func() { s.Close() }()
		m := NewMemory()
		same := func(t *rapid.T) {
			k := genKnowledge.Draw(t, "known")
			if d := cmp.Diff(dump(m, k), dump(s, k)); d != "" {
				t.Fatalf("memory (-) and store (+) differ:\n%s", d)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if s.Err() != nil {
					t.Fatal(s.Err())
				}
			},
			"put": func(t *rapid.T) {
				for _, r := range rapid.SliceOfN(genRecord, 1, 6).Draw(t, "records") {
					m.Put(r)
					s.Put(r)
				}
			},
			"remove": func(t *rapid.T) {
				p := genPath.Draw(t, "path")
				m.Put(signature.Record{Path: p})
				s.Put(signature.Record{Path: p})
			},
			"change": func(t *rapid.T) {
				p := genPath.Draw(t, "path")
				a, okA := m.Get(p)
				b, okB := s.Get(p)
				if d := cmp.Diff(a, b); d != "" || okA != okB {
					t.Fatalf("get %q: %v, %v\n%s", p, okA, okB, d)
				}
				if len(a.Listed) > 1 {
					a.Listed, b.Listed = a.Listed[1:], b.Listed[1:]
				}
				a.Mark.Links, b.Mark.Links = 2, 2
				m.Put(a)
				s.Put(b)
			},
			"ledger": func(t *rapid.T) {
				e := LedgerEntry{Path: genPath.Draw(t, "path"), Target: drawSignature(t), Version: drawVersion(t), Form: signature.Plain}
				m.PutLedger([]LedgerEntry{e})
				s.PutLedger([]LedgerEntry{e})
			},
			"clear": func(t *rapid.T) {
				ps := rapid.SliceOfN(genPath, 1, 4).Draw(t, "paths")
				m.ClearLedger(ps)
				s.ClearLedger(ps)
			},
			"commit": func(t *rapid.T) {
				meta := genMeta.Draw(t, "meta")
				if err := m.Commit(meta); err != nil {
					t.Fatal(err)
				}
				if err := s.Commit(meta); err != nil {
					t.Fatal(err)
				}
				same(t)
			},
			"discard": func(t *rapid.T) {
				m.Discard()
				s.Discard()
			},
			"restart": func(t *rapid.T) {
				m.Discard()
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = mustOpen(t, dir, here)
				if f := s.Found(); f.State != Continued {
					t.Fatalf("after a restart: %+v", f)
				}
				same(t)
			},
			"compare": same,
		})
	})
}

type fataler interface {
	Helper()
	Fatal(...any)
}

func mustOpen(t fataler, dir string, p Proof) *Store {
	t.Helper()
	s, err := Open(dir, p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
