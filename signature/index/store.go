package index

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/clsync/clsync/signature"
)

// A Store is an index in a file. See the package's comment for how it answers.
type Store struct {
	*layers
	dir    string
	lock   *os.File
	file   *os.File // bbolt's own handle: closing it frees its lock, whatever has happened
	found  Found
	proof  []byte // as this run would write it
	closed bool
	wrote  bool // this run has committed

	meta   Meta              // as last committed
	fields map[string][]byte // sealed, as they stand now
	tally  tally             // as it stands now
	recent map[signature.Path]recent
}

// A tally is over all entries but its own.
type tally struct {
	sum  uint64 // of the weights
	live uint64 // records that list something that exists
}

func (t tally) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, t.sum)
	return binary.BigEndian.AppendUint64(b, t.live)
}

func decodeTally(b []byte) (t tally, ok bool) {
	if len(b) != 16 {
		return t, false
	}
	return tally{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}, true
}

// A recent is a record read not long ago. When maxRecent are kept, all are forgotten:
// a batch of so many paths, gone through again and again, is read from the disk once.
type recent struct {
	record signature.Record
	weight uint64
}

const maxRecent = 16384

// Get returns the record of p.
func (s *Store) Get(p signature.Path) (signature.Record, bool) {
	r, ok := s.load(p)
	if ok {
		if len(s.recent) >= maxRecent {
			clear(s.recent)
		}
		s.recent[p] = r
	}
	return unshared(r.record), ok
}

func (s *Store) load(p signature.Path) (r recent, ok bool) {
	if s.err != nil {
		return r, false
	}
	if r, ok = s.recent[p]; ok {
		return r, true
	}
	sealed, ok := s.get(records, string(p))
	if !ok {
		return r, false
	}
	r.weight = weigh(records, sealed)
	r.record, ok = s.decode(p, sealed)
	return r, ok
}

// decode reads a value whose checksum is right.
func (s *Store) decode(p signature.Path, sealed []byte) (signature.Record, bool) {
	r, err := signature.DecodeRecord(p, sealed[:len(sealed)-crcLen])
	if err != nil {
		s.damaged(records, string(p), err.Error())
		return signature.Record{}, false
	}
	return r, true
}

// Put keeps r in place of what is there; an empty one is removed. A record that
// could not be read back is an error, kept like those of the disk.
func (s *Store) Put(r signature.Record) {
	old, had := s.load(r.Path)
	if s.err != nil || !had && r.Empty() {
		return
	}
	var sealed []byte
	if !r.Empty() {
		b := signature.EncodeRecord(r)
		if _, err := signature.DecodeRecord(r.Path, b); err != nil || len(r.Path) > signature.MaxPath {
			s.fail(fmt.Errorf("put record %s: %w", r.Path.Quote(), err))
			return
		}
		sealed = seal(string(r.Path), b)
		s.tally.sum += weigh(records, sealed)
		s.tally.live += one(live(r))
		s.put(records, string(r.Path), sealed)
	} else {
		s.drop(records, string(r.Path))
	}
	var was, now []place
	if had {
		s.tally.sum -= old.weight
		s.tally.live -= one(live(old.record))
		was = places(old.record)
		delete(s.recent, r.Path)
	}
	if !r.Empty() {
		now = places(r)
	}
	for _, p := range was {
		if !slices.Contains(now, p) {
			s.drop(p.bucket, p.key)
			s.tally.sum -= p.weight()
		}
	}
	for _, p := range now {
		if !slices.Contains(was, p) {
			s.put(p.bucket, p.key, seal(p.key, nil))
			s.tally.sum += p.weight()
		}
	}
}

func one(is bool) uint64 {
	if is {
		return 1
	}
	return 0
}

// Len counts the records that list something that exists.
func (s *Store) Len() int {
	if s.err != nil {
		return 0
	}
	return int(s.tally.live)
}

// Err returns the first error that any method met.
func (s *Store) Err() error { return s.err }

// Found tells what Open found.
func (s *Store) Found() Found { return s.found }

// Continuous tells whether this index has been proven to be the one this machine
// last wrote. Otherwise its dots may have been used by another copy: the actor must
// be a new one.
func (s *Store) Continuous() bool { return s.found.Continuous }

// Meta returns what was last committed.
func (s *Store) Meta() Meta { return s.meta.clone() }

// Commit makes durable what was put, with meta, in one transaction. On an error
// nothing of it is; as long as Err is nil, everything still waits, and a later Commit
// may succeed: a full disk is no reason to stop.
//
// The proof of continuity is written with the first actor that is not the one an
// unproven index came with, so that no crash in between can make that one look proven.
func (s *Store) Commit(meta Meta) error {
	if s.err != nil {
		return s.err
	}
	if err := meta.check(); err != nil {
		return fmt.Errorf("commit index: %w", err)
	}
	fields := meta.fields()
	if s.found.Continuous || meta.Actor != s.found.Actor {
		fields[fieldProof] = s.proof
	}
	for name := range s.fields {
		if isPeer(name) && fields[name] == nil {
			s.setField(name, nil)
		}
	}
	for name, b := range fields {
		s.setField(name, b)
	}
	if s.pending() == 0 {
		return nil
	}
	s.setField(fieldClean, []byte{0})
	s.setField(fieldSum, s.tally.encode())
	if err := s.commit(); err != nil {
		return err
	}
	s.meta, s.wrote = meta.clone(), true
	return nil
}

// setField puts a field unless it stands there already; nil removes it.
func (s *Store) setField(name string, b []byte) {
	var sealed []byte
	if b != nil {
		sealed = seal(name, b)
	}
	old := s.fields[name]
	if string(old) == string(sealed) {
		return
	}
	counts := name != fieldSum
	if old != nil && counts {
		s.tally.sum -= weigh(metas, old)
	}
	if sealed == nil {
		delete(s.fields, name)
		s.drop(metas, name)
		return
	}
	if counts {
		s.tally.sum += weigh(metas, sealed)
	}
	s.fields[name] = sealed
	s.put(metas, name, sealed)
}

// Discard forgets what was put since the last Commit.
func (s *Store) Discard() {
	s.clear()
	clear(s.recent)
	if s.err == nil {
		s.readFields()
	}
}

// readFields reads all that is not records or ledger.
func (s *Store) readFields() {
	s.meta, s.fields = Meta{}.clone(), map[string][]byte{}
	c := s.cursor(metas)
	for ok := c.seek(""); ok; ok = c.next() {
		s.fields[c.key] = c.sealed
		b := c.sealed[:len(c.sealed)-crcLen]
		if err := s.meta.read(c.key, b); err != nil {
			s.damaged(metas, c.key, err.Error())
			return
		}
		if c.key == fieldSum {
			t, ok := decodeTally(b)
			if !ok {
				s.damaged(metas, c.key, "length")
				return
			}
			s.tally = t
		}
	}
}

// PutLedger keeps entries, one per path.
func (s *Store) PutLedger(es []LedgerEntry) {
	for _, e := range es {
		if s.err != nil {
			return
		}
		b := encodeEntry(e)
		if _, err := decodeEntry(e.Path, b); err != nil {
			s.fail(fmt.Errorf("put ledger entry %s: %w", e.Path.Quote(), err))
			return
		}
		s.unweigh(e.Path)
		sealed := seal(string(e.Path), b)
		s.put(ledger, string(e.Path), sealed)
		s.tally.sum += weigh(ledger, sealed)
	}
}

// ClearLedger removes the entries of those paths.
func (s *Store) ClearLedger(ps []signature.Path) {
	for _, p := range ps {
		if s.unweigh(p) {
			s.drop(ledger, string(p))
		}
	}
}

func (s *Store) unweigh(p signature.Path) bool {
	sealed, ok := s.get(ledger, string(p))
	if ok {
		s.tally.sum -= weigh(ledger, sealed)
	}
	return ok
}

// Ledger yields the entries in byte order of the path.
func (s *Store) Ledger(yield func(LedgerEntry) bool) {
	c := s.cursor(ledger)
	for ok := c.seek(""); ok; ok = c.next() {
		e, err := decodeEntry(signature.Path(c.key), c.sealed[:len(c.sealed)-crcLen])
		if err != nil {
			s.damaged(ledger, c.key, err.Error())
			return
		}
		if !yield(e) {
			return
		}
	}
}

// Close ends the Store. What was not committed is lost. If nothing went wrong, the
// file says that it was closed in order.
func (s *Store) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.Discard()
	var err error
	if s.err == nil && s.wrote {
		s.setField(fieldClean, []byte{1})
		if s.pending() > 0 {
			s.setField(fieldSum, s.tally.encode())
			err = s.commit()
		}
	}
	s.release()
	if cerr := shut(s.db, s.file, s.torn); err == nil {
		err = cerr
	}
	if cerr := s.lock.Close(); err == nil {
		err = cerr
	}
	s.fail(os.ErrClosed)
	return err
}

// shut closes db. One that has panicked may hold its own locks for ever; then only
// its file is closed, and its mapping is left to the process's end.
func shut(db *bbolt.DB, file *os.File, torn bool) error {
	if !torn {
		panicked, err := guard(db.Close)
		if !panicked {
			return err
		}
	}
	return file.Close()
}
