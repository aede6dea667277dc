package index

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/google/btree"
	"go.etcd.io/bbolt"

	"github.com/clsync/clsync/signature"
)

// ErrDamaged is kept by a Store that read what it never wrote. Closing it and
// opening it again sets the file aside if the damage is in the file.
var ErrDamaged = errors.New("damaged index")

// A pair is a key with its sealed value; without one, the key is gone.
type pair struct {
	key    string
	sealed []byte
}

func (p pair) before(q pair) bool { return p.key < q.key }

// layers are ordered buckets: the file's, and over them what was put since the last
// commit. One read transaction is opened by the first read after a commit and ends
// with the next.
type layers struct {
	db   *bbolt.DB
	tx   *bbolt.Tx
	over [buckets]*btree.BTreeG[pair]
	age  uint64 // counts the transactions, so that a cursor sees that its own is over
	err  error
	// torn: something panicked inside bbolt, whose locks cannot be trusted any more.
	torn bool
}

func newLayers(db *bbolt.DB) *layers {
	l := &layers{db: db}
	l.clear()
	return l
}

func (l *layers) clear() {
	for b := range l.over {
		l.over[b] = btree.NewG(32, pair.before)
	}
}

// pending counts what waits for a commit.
func (l *layers) pending() (n int) {
	for _, o := range l.over {
		n += o.Len()
	}
	return n
}

func (l *layers) fail(err error) {
	if l.err == nil {
		l.err = err
	}
}

func (l *layers) damaged(b bucket, key, what string) {
	l.fail(fmt.Errorf("%w: %s %s: %s", ErrDamaged, bucketNames[b], signature.Quote(key), what))
}

// guard runs what touches bbolt's mapped pages. A damaged or shortened file makes
// bbolt panic or the kernel send SIGBUS; both become an error here, as long as
// nothing but bbolt and copying is done inside.
func guard(f func() error) (torn bool, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			torn, err = true, fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return false, f()
}

func (l *layers) read(f func(*bbolt.Tx) error) bool {
	if l.err != nil {
		return false
	}
	torn, err := guard(func() error {
		if l.tx == nil {
			tx, err := l.db.Begin(false)
			if err != nil {
				return fmt.Errorf("begin read: %w", err)
			}
			l.tx = tx
		}
		return f(l.tx)
	})
	l.torn = l.torn || torn
	if err != nil {
		l.fail(fmt.Errorf("read index: %w", err))
	}
	return err == nil
}

// release ends the read transaction: bbolt reuses no page while it is open, and
// cannot grow its mapping.
func (l *layers) release() {
	if l.tx == nil {
		return
	}
	torn, err := guard(l.tx.Rollback)
	l.tx, l.torn = nil, l.torn || torn
	l.age++
	if err != nil {
		l.fail(fmt.Errorf("end read: %w", err))
	}
}

// get returns the sealed value of key, checked.
func (l *layers) get(b bucket, key string) (sealed []byte, ok bool) {
	if l.err != nil {
		return nil, false
	}
	if p, ok := l.over[b].Get(pair{key: key}); ok {
		return p.sealed, p.sealed != nil
	}
	if !l.read(func(tx *bbolt.Tx) error {
		v := tx.Bucket([]byte(bucketNames[b])).Get([]byte(key))
		if len(v) > maxValue {
			return fmt.Errorf("%w: %d bytes", ErrDamaged, len(v))
		}
		if ok = v != nil; ok {
			sealed = append(make([]byte, 0, len(v)), v...)
		}
		return nil
	}) || !ok {
		return nil, false
	}
	if _, right := unseal(bytesOf(key), sealed); !right {
		l.damaged(b, key, "checksum")
		return nil, false
	}
	return sealed, true
}

func (l *layers) put(b bucket, key string, sealed []byte) {
	l.over[b].ReplaceOrInsert(pair{key, sealed})
}

func (l *layers) drop(b bucket, key string) { l.over[b].ReplaceOrInsert(pair{key: key}) }

// commit writes everything in one transaction, in order. On an error all of it
// still waits. A batch of at least bulk records fills its pages well.
func (l *layers) commit() error {
	if l.err != nil {
		return l.err
	}
	l.release()
	before := l.version()
	if l.err != nil {
		return l.err
	}
	torn, err := guard(l.write)
	if err == nil {
		l.age++
		l.clear()
		return nil
	}
	err = fmt.Errorf("commit index: %w", err)
	switch {
	case torn:
		l.torn = true
		l.fail(err)
	case l.version() != before:
		// The new state is in the page cache but could not be synced: what is
		// on disk nobody knows, and a second sync would lie.
		l.fail(err)
	}
	return err
}

const bulk = 1000

func (l *layers) write() error {
	tx, err := l.db.Begin(true)
	if err != nil {
		return err
	}
	done := false
	defer func() {
		if !done {
			tx.Rollback() // its only error is that Commit has done it already
		}
	}()
	for b, over := range l.over {
		if over.Len() == 0 {
			continue
		}
		to := tx.Bucket([]byte(bucketNames[b]))
		if l.over[records].Len() >= bulk {
			to.FillPercent = 0.9
		}
		over.Ascend(func(p pair) bool {
			if p.sealed == nil {
				err = to.Delete([]byte(p.key))
			} else {
				err = to.Put([]byte(p.key), p.sealed)
			}
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	err = tx.Commit()
	done = err == nil
	return err
}

// version returns which transaction the file shows.
func (l *layers) version() (id int) {
	if l.torn {
		return 0
	}
	torn, err := guard(func() error {
		return l.db.View(func(tx *bbolt.Tx) error {
			id = tx.ID()
			return nil
		})
	})
	l.torn = l.torn || torn
	if err != nil {
		l.fail(fmt.Errorf("read index: %w", err))
	}
	return id
}
