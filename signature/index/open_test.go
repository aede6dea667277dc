package index

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/clsync/clsync/signature"
)

var actorA, actorB = signature.Actor{Incarnation: 1}, signature.Actor{Incarnation: 2}

func closed(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func committed(t *testing.T, s *Store, m Meta) {
	t.Helper()
	if err := s.Commit(m); err != nil {
		t.Fatal(err)
	}
}

// lived makes an index of actorA and returns its folder.
func lived(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s := mustOpen(t, dir, here)
	if f := s.Found(); f.State != Fresh || f.Continuous {
		t.Fatalf("a new index: %+v", f)
	}
	s.Put(sample(1))
	committed(t, s, Meta{Actor: actorA, Reserved: 10})
	closed(t, s)
	return dir
}

func TestContinuity(t *testing.T) {
	copyOver := func(t *testing.T, dir string) {
		path := filepath.Join(dir, fileName)
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.Remove(path)
		}
		if err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		proof Proof
		do    func(t *testing.T, dir string)
		want  bool
	}{
		"the same":      {proof: here, want: true},
		"another boot":  {proof: Proof{BootID: "another", Mount: here.Mount}},
		"another mount": {proof: Proof{BootID: here.BootID, Mount: 8}},
		"no boot ID":    {proof: Proof{Mount: here.Mount}},
		"restored":      {proof: here, do: copyOver},
	} {
		t.Run(name, func(t *testing.T) {
			dir := lived(t)
			if tt.do != nil {
				tt.do(t, dir)
			}
			s := mustOpen(t, dir, tt.proof)
			defer func() { s.Close() }()
			f := s.Found()
			if f.State != Continued || s.Continuous() != tt.want || !f.Clean || f.Actor != actorA || s.Len() != 1 {
				t.Fatalf("%+v, %d live", f, s.Len())
			}
			if tt.want {
				return
			}
			// A crash before the new actor is written must not make the old one
			// look proven, whatever else was written.
			s.Put(sample(2))
			committed(t, s, Meta{Actor: actorA, Reserved: 20})
			closed(t, s)
			s = mustOpen(t, dir, tt.proof)
			if s.Continuous() {
				t.Fatal("the old actor is proven by having been opened")
			}
			committed(t, s, Meta{Actor: actorB, Reserved: 30})
			closed(t, s)
			s = mustOpen(t, dir, tt.proof)
			if want := tt.proof.BootID != ""; s.Continuous() != want {
				t.Fatalf("the new actor: continuous is %v", s.Continuous())
			}
		})
	}
}

func TestNotClosedIsNotClean(t *testing.T) {
	dir := lived(t)
	s := mustOpen(t, dir, here)
	committed(t, s, Meta{Actor: actorA, Reserved: 11})
	s.PutLedger([]LedgerEntry{{Path: "a"}})
	// Left as a crash leaves it, but for the locks.
	s.release()
	if err := errors.Join(s.db.Close(), s.lock.Close()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // looking does not make it clean
		s = mustOpen(t, dir, here)
		if f := s.Found(); f.Clean || !f.Continuous || s.Meta().Reserved != 11 {
			t.Fatalf("%+v", f)
		}
		closed(t, s)
	}
}

func TestTwoDaemons(t *testing.T) {
	dir := lived(t)
	s := mustOpen(t, dir, here)
	start := time.Now()
	if _, err := Open(dir, here); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("opened twice: %v", err)
	}
	if took := time.Since(start); took < lockWait || took > 10*lockWait {
		t.Errorf("waited %v", took)
	}
	closed(t, s)
	closed(t, mustOpen(t, dir, here))
}

func TestALaterFormatStays(t *testing.T) {
	dir := lived(t)
	s := mustOpen(t, dir, here)
	s.setField(fieldFormat, []byte("2"))
	committed(t, s, Meta{})
	closed(t, s)
	if _, err := Open(dir, here); err == nil || errors.Is(err, ErrDamaged) {
		t.Fatalf("opened: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, fileName)); err != nil {
		t.Error(err)
	}
}

func TestAnEmptyFileIsDamage(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir, here)
	defer s.Close()
	if f := s.Found(); f.State != Damaged {
		t.Errorf("%+v", f)
	}
}

// After a mass delete the file is copied into a smaller one, and stays proven.
func TestCompaction(t *testing.T) {
	dir := fastDir(t)
	s := mustOpen(t, dir, here)
	fill(t, s, 40_000)
	for i := range 40_000 {
		if i%100 != 0 {
			s.Put(signature.Record{Path: samplePath(i)})
		}
	}
	meta := Meta{TreeID: "bench", Actor: actorB, Reserved: 9}
	committed(t, s, meta)
	says := dump(s, nil)
	closed(t, s)
	path := filepath.Join(dir, fileName)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, newName), []byte("left by a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, here)
	defer func() { s.Close() }()
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if f := s.Found(); !f.Compacted || f.Uncompacted != nil || !f.Continuous || !f.Clean || after.Size() > before.Size()/4 {
		t.Errorf("%+v, from %d to %d bytes", f, before.Size(), after.Size())
	}
	if os.SameFile(before, after) || strings.Join(dump(s, nil), "\n") != strings.Join(says, "\n") {
		t.Error("the copy answers otherwise")
	}
	s.Put(sample(5))
	committed(t, s, meta)
	closed(t, s)
	s = mustOpen(t, dir, here)
	if f := s.Found(); f.State != Continued || f.Compacted || !f.Continuous {
		t.Errorf("%+v", f)
	}
	// The same index elsewhere is not proven by being copied.
	closed(t, s)
	s = mustOpen(t, dir, Proof{BootID: "another", Mount: 1})
	if s.Continuous() {
		t.Error("continuous after another boot")
	}
}

// What could not be read back is refused when it is put, and nothing of it stays.
func TestUnreadableIsRefused(t *testing.T) {
	bad := sample(1)
	bad.Listed = append(bad.Listed, bad.Listed[0]) // a dot twice
	long := sample(1)
	long.Path = signature.Path(strings.Repeat("a/", 3000) + "b")
	for name, use := range map[string]func(*Store) error{
		"record": func(s *Store) error { s.Put(bad); return s.Err() },
		"path":   func(s *Store) error { s.Put(long); return s.Err() },
		"ledger": func(s *Store) error {
			s.PutLedger([]LedgerEntry{{Path: "a", Target: signature.Signature{Type: 99}}})
			return s.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := lived(t)
			s := mustOpen(t, dir, here)
			if err := use(s); err == nil || errors.Is(err, ErrDamaged) {
				t.Fatalf("err %v", err)
			}
			if err := s.Commit(Meta{Actor: actorB}); err == nil {
				t.Error("committed after an error")
			}
			closed(t, s)
			s = mustOpen(t, dir, here)
			defer s.Close()
			if s.Len() != 1 || s.Meta().Actor != actorA {
				t.Errorf("%d live, %v", s.Len(), s.Meta().Actor)
			}
		})
	}
	s := mustOpen(t, t.TempDir(), here)
	defer s.Close()
	k := signature.Knowledge{}
	for i := range signature.MaxActors + 1 {
		k[signature.Actor{Incarnation: uint64(i)}] = 1
	}
	for _, m := range []Meta{{Knowledge: k}, {Peers: map[signature.NodeID]signature.Knowledge{{1}: k}}, {Knowledge: signature.Knowledge{actorA: signature.MaxSeq + 1}}, {Extra: make([]byte, MaxExtra+1)}, {TreeID: string(make([]byte, maxName+1))}} {
		if err := s.Commit(m); err == nil {
			t.Error("committed a meta that cannot be read back")
		}
	}
	committed(t, s, Meta{Actor: actorA}) // and that was not the end of it
}

// A callback may put, and even commit: the iteration goes on behind where it stood.
func TestPutAndCommitWithinAnIteration(t *testing.T) {
	s := mustOpen(t, t.TempDir(), here)
	defer s.Close()
	for i := range 50 {
		s.Put(sample(i))
	}
	committed(t, s, Meta{})
	n := 0
	s.Ascend("", func(r signature.Record) bool {
		if want := samplePath(n); r.Path != want {
			t.Fatalf("%s, want %s", r.Path, want)
		}
		r.Mark.Links = 9
		s.Put(r)
		if n%7 == 0 {
			committed(t, s, Meta{Reserved: uint64(n)})
		}
		n++
		return true
	})
	if n != 50 || s.Err() != nil {
		t.Errorf("%d records, err %v", n, s.Err())
	}
	linked := 0
	for i := range 50 {
		s.ByInode(64769, uint64(i)+12, func(signature.Path) bool { linked++; return true })
	}
	if linked != 50 {
		t.Errorf("%d linked", linked)
	}
}

// A commit that changes nothing writes nothing, and one that changes a little does
// not rewrite the rest.
func TestCommitWritesWhatChanged(t *testing.T) {
	s := mustOpen(t, t.TempDir(), here)
	defer s.Close()
	k := signature.Knowledge{actorA: 3}
	m := Meta{TreeID: "t", Knowledge: k, Peers: map[signature.NodeID]signature.Knowledge{{1}: k, {2}: k}}
	committed(t, s, m)
	k[actorA] = 99 // the caller's own; what was committed is a copy
	before := s.version()
	committed(t, s, s.Meta())
	if got := s.version(); got != before {
		t.Errorf("transaction %d after %d", got, before)
	}
	m = s.Meta()
	m.Reserved = 4
	delete(m.Peers, signature.NodeID{2})
	for name, b := range m.fields() {
		if _, ok := s.fields[name]; !ok || name == fieldReserved != (string(seal(name, b)) != string(s.fields[name])) {
			t.Errorf("field %q", name)
		}
	}
	committed(t, s, m)
	if err := s.db.View(func(tx *bbolt.Tx) error {
		if got := tx.Bucket([]byte(bucketNames[metas])).Stats().KeyN; got != len(s.fields) {
			t.Errorf("%d fields on disk, %d in memory", got, len(s.fields))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// A file of one name is found by its inode: when it gets a second name, that one is
// looked at before the first is.
func TestByInode(t *testing.T) {
	s := mustOpen(t, t.TempDir(), here)
	defer s.Close()
	for _, x := range []Index{NewMemory(), s} {
		one, folder, gone := sample(1), sample(2), sample(3)
		folder.Shown = signature.Signature{Type: signature.Folder}
		gone.Shown, gone.Mark = signature.Signature{Type: signature.Absent}, signature.StatMark{}
		for _, r := range []signature.Record{one, folder, gone} {
			x.Put(r)
		}
		committed := func(ino uint64) (ps []signature.Path) {
			if err := x.Commit(Meta{}); err != nil {
				t.Fatal(err)
			}
			x.ByInode(64769, ino, func(p signature.Path) bool { ps = append(ps, p); return true })
			return ps
		}
		if ps := committed(one.Mark.Ino); len(ps) != 1 || ps[0] != one.Path || one.Mark.Links != 1 {
			t.Errorf("%T: a file of one name: %v", x, ps)
		}
		if ps := committed(folder.Mark.Ino); ps != nil {
			t.Errorf("%T: a folder: %v", x, ps)
		}
		x.ByInode(0, 0, func(p signature.Path) bool { t.Errorf("%T: nothing is inode 0: %s", x, p); return true })
		old := one.Mark.Ino
		one.Mark.Ino = 999
		x.Put(one)
		if a, b := committed(old), committed(999); a != nil || len(b) != 1 {
			t.Errorf("%T: moved to another inode: %v and %v", x, a, b)
		}
	}
}
