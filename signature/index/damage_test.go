package index

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/clsync/clsync/signature"
)

func fastDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(fast, "index")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// aged returns the file of an index with branches, big values, free pages and all
// buckets filled, and what it answers.
func aged(t testing.TB) (file []byte, says []string) {
	t.Helper()
	dir := fastDir(t)
	s := mustOpen(t, dir, here)
	for round := range 3 {
		for i := round; i < 600; i += round + 1 {
			r := sample(i)
			r.Listed[0].Dot.Seq += uint64(round) * 1000
			r.Held.Version = r.Listed[0]
			r.Mark.Links = uint32(i % 2 * 2)
			r.Mark.Dev, r.Mark.Ino = 3, uint64(i%3)
			r.Shown.Hash.Sum = [32]byte{byte(i % 3)}
			s.Put(r)
		}
		for i := range 50 * round {
			s.Put(signature.Record{Path: samplePath(i)})
		}
		big := sample(1000)
		big.Listed[0].Sig.Xattrs = signature.EncodeXattrs([]signature.Xattr{{Name: "user.big", Value: string(make([]byte, 9000))}})
		s.Put(big)
		s.PutLedger([]LedgerEntry{{Path: samplePath(round), Target: big.Shown, Version: big.Held.Version, Form: signature.Plain}})
		if err := s.Commit(Meta{TreeID: "aged", Actor: signature.Actor{Incarnation: 3}, Reserved: uint64(round)}); err != nil {
			t.Fatal(err)
		}
	}
	says = dump(s, nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	return file, says
}

// A damaged file either answers exactly as before, because what was hit is free, or
// is set aside; the process lives, and goes on with a working index.
func TestDamageIsNeverAnAnswer(t *testing.T) {
	file, says := aged(t)
	const page = 4096
	rnd := rand.New(rand.NewPCG(1, 2))
	kinds := map[string]func(b []byte) []byte{
		"one bit": func(b []byte) []byte {
			b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
			return b
		},
		"one bit of a page's head": func(b []byte) []byte {
			b[rnd.IntN(len(b)/page)*page+rnd.IntN(80)] ^= 1 << rnd.IntN(8)
			return b
		},
		"zeroed page": func(b []byte) []byte {
			at := rnd.IntN(len(b)/page) * page
			clear(b[at : at+page])
			return b
		},
		"page in another's place": func(b []byte) []byte {
			from, to := rnd.IntN(len(b)/page)*page, rnd.IntN(len(b)/page)*page
			copy(b[to:to+page], bytes.Clone(b[from:from+page]))
			return b
		},
		"rubbish": func(b []byte) []byte {
			at := rnd.IntN(len(b) - 100)
			for i := range 100 {
				b[at+i] = byte(rnd.Uint32())
			}
			return b
		},
		"cut off": func(b []byte) []byte { return b[:rnd.IntN(len(b))] },
	}
	for name, harm := range kinds {
		t.Run(name, func(t *testing.T) {
			found := map[State]int{}
			for range 60 {
				harmed := harm(bytes.Clone(file))
				found[checkHarmed(t, harmed, says)]++
			}
			t.Logf("%v", found)
			if found[Damaged] == 0 || found[Fresh] != 0 {
				t.Errorf("found %v", found)
			}
		})
	}
}

func checkHarmed(t *testing.T, file []byte, says []string) State {
	t.Helper()
	dir := fastDir(t)
	path := filepath.Join(dir, fileName)
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir, here)
	f := s.Found()
	switch f.State {
	case Continued:
		if d := cmp.Diff(says, dump(s, nil)); d != "" {
			t.Fatalf("another answer:\n%s", d)
		}
	case Damaged:
		kept, err := os.ReadFile(f.Aside)
		if err != nil || !bytes.Equal(kept, file) {
			t.Fatalf("set aside as %s: %v, %d bytes of %d", f.Aside, err, len(kept), len(file))
		}
		if !errors.Is(f.Reason, ErrDamaged) || s.Len() != 0 || f.Continuous {
			t.Fatalf("%+v with %d records", f, s.Len())
		}
	}
	// It works, whatever it is, and what is written to it is sound.
	for i := range 300 {
		s.Put(sample(i + 2000))
	}
	if err := s.Commit(Meta{}); err != nil {
		t.Fatal(err)
	}
	says = dump(s, nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, here)
	defer s.Close()
	if got := s.Found(); got.State != Continued {
		t.Fatalf("reopened: %+v", got)
	}
	if d := cmp.Diff(says, dump(s, nil)); d != "" {
		t.Fatalf("after reopening:\n%s", d)
	}
	return f.State
}

// bbolt falls back to the older of its meta pages. That would take back the last
// commit without a word, and with it the dots it reserved.
func TestALostMetaPageIsDamage(t *testing.T) {
	file, says := aged(t)
	for page := range 2 {
		harmed := bytes.Clone(file)
		clear(harmed[page*4096 : page*4096+80])
		if got := checkHarmed(t, harmed, says); got != Damaged {
			t.Errorf("without meta page %d: %v", page, got)
		}
	}
}

// The file shrinks under an open index, which the kernel answers with SIGBUS.
func TestDamageWhileOpen(t *testing.T) {
	file, _ := aged(t)
	for name, use := range map[string]func(*Store){
		"get":      func(s *Store) { s.Get(samplePath(333)) },
		"put":      func(s *Store) { s.Put(sample(333)) },
		"ascend":   func(s *Store) { s.Ascend("", func(signature.Record) bool { return true }) },
		"children": func(s *Store) { s.Children("", func(signature.Record) bool { return true }) },
		"since":    func(s *Store) { s.Since(nil, func(signature.Record) bool { return true }) },
		"hash": func(s *Store) {
			s.ByHash(signature.Hash{Algorithm: signature.SHA256}, func(signature.Path) bool { return true })
		},
		"inode":   func(s *Store) { s.ByInode(3, 1, func(signature.Path) bool { return true }) },
		"ledger":  func(s *Store) { s.Ledger(func(LedgerEntry) bool { return true }) },
		"discard": func(s *Store) { s.Discard() },
		"commit": func(s *Store) {
			if s.Commit(Meta{TreeID: "x"}) == nil {
				t.Error("committed into a file that is gone")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fastDir(t)
			path := filepath.Join(dir, fileName)
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			s := mustOpen(t, dir, here)
			if err := os.Truncate(path, 2*4096); err != nil {
				t.Fatal(err)
			}
			use(s)
			if !errors.Is(s.Err(), ErrDamaged) {
				t.Fatalf("err %v", s.Err())
			}
			if r, ok := s.Get(samplePath(3)); ok || r.Path != "" || s.Len() != 0 {
				t.Errorf("a damaged index still answers: %+v", r)
			}
			if err := s.Commit(Meta{}); !errors.Is(err, ErrDamaged) {
				t.Errorf("a damaged index commits: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Logf("close: %v", err)
			}
			s = mustOpen(t, dir, here) // nothing of it is still locked
			defer s.Close()
			if f := s.Found(); f.State != Damaged {
				t.Errorf("opened again: %+v", f)
			}
		})
	}
}

// A bit that flips in an open file is an error that names the key.
func TestABitFlipsWhileOpen(t *testing.T) {
	file, _ := aged(t)
	dir := fastDir(t)
	path := filepath.Join(dir, fileName)
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir, here)
	defer s.Close()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Every place where the record's link count or anything near may stand: right
	// behind each copy of its path.
	p := samplePath(599)
	for at := 0; ; {
		i := bytes.Index(file[at:], []byte(p))
		if i < 0 {
			break
		}
		at += i + len(p)
		if _, err := f.WriteAt([]byte{file[at] ^ 0x10}, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := s.Get(p); ok || !errors.Is(s.Err(), ErrDamaged) || !bytes.Contains([]byte(s.Err().Error()), []byte(p)) {
		t.Errorf("got %v, err %v", ok, s.Err())
	}
}

func TestSetAsideKeepsThree(t *testing.T) {
	dir := fastDir(t)
	for i := range 6 {
		if err := os.WriteFile(filepath.Join(dir, fileName), []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := mustOpen(t, dir, here).Close(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := filepath.Glob(filepath.Join(dir, asideName+"*"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, n := range []string{"4", "5", "6"} {
		want = append(want, filepath.Join(dir, asideName+n))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
