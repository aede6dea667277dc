package index

import (
	"maps"
	"slices"
	"strings"

	"github.com/clsync/clsync/signature"
)

// Memory is an index in maps, for tests and the simulator: small, plain and the
// same on every run. Discard is a crash.
type Memory struct {
	records map[signature.Path]signature.Record
	paths   []signature.Path // those of records, in order
	ledger  map[signature.Path]LedgerEntry
	meta    Meta
	live    int

	// What the last Commit left: a record that was not there is an empty one.
	undo       map[signature.Path]signature.Record
	keptLedger map[signature.Path]LedgerEntry
}

// NewMemory returns an empty index.
func NewMemory() *Memory {
	return &Memory{
		records:    map[signature.Path]signature.Record{},
		ledger:     map[signature.Path]LedgerEntry{},
		meta:       Meta{}.clone(),
		undo:       map[signature.Path]signature.Record{},
		keptLedger: map[signature.Path]LedgerEntry{},
	}
}

func unshared(r signature.Record) signature.Record {
	r.Listed = append([]signature.Version(nil), r.Listed...)
	return r
}

// Get returns the record of p.
func (m *Memory) Get(p signature.Path) (signature.Record, bool) {
	r, ok := m.records[p]
	return unshared(r), ok
}

// Put keeps r in place of what is there; an empty one is removed.
func (m *Memory) Put(r signature.Record) {
	old, had := m.records[r.Path]
	if _, done := m.undo[r.Path]; !done {
		old.Path = r.Path
		m.undo[r.Path] = old
	}
	m.set(r, had, live(old))
}

func (m *Memory) set(r signature.Record, had, lived bool) {
	if lived {
		m.live--
	}
	at, _ := slices.BinarySearch(m.paths, r.Path)
	switch {
	case r.Empty() && had:
		delete(m.records, r.Path)
		m.paths = slices.Delete(m.paths, at, at+1)
	case r.Empty():
	default:
		m.records[r.Path] = unshared(r)
		if !had {
			m.paths = slices.Insert(m.paths, at, r.Path)
		}
		if live(r) {
			m.live++
		}
	}
}

// Len counts the records that list something that exists.
func (m *Memory) Len() int { return m.live }

// Ascend yields all records strictly beneath dir, in byte order of the whole path;
// beneath "" are all.
func (m *Memory) Ascend(dir signature.Path, yield func(signature.Record) bool) {
	prefix := beneath(dir)
	for from := prefix; ; {
		at, _ := slices.BinarySearch(m.paths, signature.Path(from))
		if at == len(m.paths) || !strings.HasPrefix(string(m.paths[at]), prefix) {
			return
		}
		p := m.paths[at]
		if !yield(unshared(m.records[p])) {
			return
		}
		from = string(p) + "\x00"
	}
}

// Children yields the records directly beneath dir, in byte order of the path.
func (m *Memory) Children(dir signature.Path, yield func(signature.Record) bool) {
	skip := len(beneath(dir))
	m.Ascend(dir, func(r signature.Record) bool {
		return strings.Contains(string(r.Path[skip:]), "/") || yield(r)
	})
}

// Since yields every record that lists a dot which k does not cover, once, in order
// of the least such dot (actor, then seq).
func (m *Memory) Since(k signature.Knowledge, yield func(signature.Record) bool) {
	type found struct {
		dot  signature.Dot
		path signature.Path
	}
	var fs []found
	for _, p := range m.paths {
		if d, ok := leastUnknown(m.records[p], k); ok {
			fs = append(fs, found{d, p})
		}
	}
	slices.SortStableFunc(fs, func(a, b found) int { return a.dot.Compare(b.dot) })
	for _, f := range fs {
		if r, ok := m.Get(f.path); ok && !yield(r) {
			return
		}
	}
}

// ByHash yields the paths that show the content h as their version says, in order.
func (m *Memory) ByHash(h signature.Hash, yield func(signature.Path) bool) {
	m.where(yield, func(r signature.Record) bool { return hasContent(r) && r.Shown.Hash == h })
}

// ByDot yields the path that lists the version with that dot.
func (m *Memory) ByDot(d signature.Dot, yield func(signature.Path) bool) {
	m.where(yield, func(r signature.Record) bool {
		_, ok := r.List(d)
		return ok
	})
}

// ByInode yields the paths last seen as names of that inode, in order.
func (m *Memory) ByInode(dev, ino uint64, yield func(signature.Path) bool) {
	m.where(yield, func(r signature.Record) bool {
		return linked(r) && r.Mark.Dev == dev && r.Mark.Ino == ino
	})
}

func (m *Memory) where(yield func(signature.Path) bool, match func(signature.Record) bool) {
	for _, p := range slices.Clone(m.paths) {
		if match(m.records[p]) && !yield(p) {
			return
		}
	}
}

// PutLedger keeps entries, one per path.
func (m *Memory) PutLedger(es []LedgerEntry) {
	for _, e := range es {
		m.ledger[e.Path] = e
	}
}

// ClearLedger removes the entries of those paths.
func (m *Memory) ClearLedger(ps []signature.Path) {
	for _, p := range ps {
		delete(m.ledger, p)
	}
}

// Ledger yields the entries in byte order of the path.
func (m *Memory) Ledger(yield func(LedgerEntry) bool) {
	for _, p := range slices.Sorted(maps.Keys(m.ledger)) {
		if !yield(m.ledger[p]) {
			return
		}
	}
}

// Meta returns what was last committed.
func (m *Memory) Meta() Meta { return m.meta.clone() }

// Commit keeps what was put, with meta.
func (m *Memory) Commit(meta Meta) error {
	if err := meta.check(); err != nil {
		return err
	}
	m.meta = meta.clone()
	clear(m.undo)
	m.keptLedger = maps.Clone(m.ledger)
	return nil
}

// Discard forgets what was put since the last Commit.
func (m *Memory) Discard() {
	for p, r := range m.undo {
		now, had := m.records[p]
		m.set(r, had, live(now))
	}
	clear(m.undo)
	m.ledger = maps.Clone(m.keptLedger)
}

// Err is nil: memory does not fail.
func (m *Memory) Err() error { return nil }
