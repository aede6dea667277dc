package index

import (
	"fmt"
	"strings"

	"github.com/google/btree"
	"go.etcd.io/bbolt"
)

// A cursor walks one bucket of both layers in order of the keys. It may be used
// while entries are put, and across a commit: it goes on behind where it stands.
type cursor struct {
	l      *layers
	b      bucket
	within string // a prefix: nothing behind its last key is of interest
	key    string
	sealed []byte

	at  *bbolt.Cursor
	age uint64
	low pair // where at stands; zero at the end
	eof bool
}

func (l *layers) cursor(b bucket) *cursor { return &cursor{l: l, b: b} }

func (l *layers) cursorWithin(b bucket, prefix string) *cursor {
	return &cursor{l: l, b: b, within: prefix}
}

// seek goes to the first key from key on, and tells whether there is one.
func (c *cursor) seek(key string) bool {
	return c.sink(key) && c.merge(key)
}

// next goes to the next key.
func (c *cursor) next() bool {
	if c.l.err != nil {
		return false
	}
	from := c.key
	if c.l.over[c.b].Len() > 0 || c.age != c.l.age {
		from += "\x00"
	}
	switch {
	case c.age != c.l.age || c.l.tx == nil:
		if !c.sink(from) {
			return false
		}
	case !c.eof && c.low.key <= c.key:
		if !c.step() {
			return false
		}
	}
	return c.merge(from)
}

// sink sets the lower layer to the first key from key on.
func (c *cursor) sink(key string) bool {
	return c.l.read(func(tx *bbolt.Tx) error {
		if c.at == nil || c.age != c.l.age {
			c.at, c.age = tx.Bucket([]byte(bucketNames[c.b])).Cursor(), c.l.age
		}
		return c.set(c.at.Seek([]byte(key)))
	})
}

func (c *cursor) step() bool {
	return c.l.read(func(*bbolt.Tx) error {
		return c.set(c.at.Next())
	})
}

// set copies: nothing of the mapped file may outlive the transaction.
func (c *cursor) set(k, v []byte) error {
	c.eof = k == nil
	c.low = pair{}
	if len(k) > maxKey || len(v) > maxValue {
		return fmt.Errorf("%w: key and value of %d and %d bytes", ErrDamaged, len(k), len(v))
	}
	if !c.eof {
		c.low = pair{string(k), append(make([]byte, 0, len(v)), v...)}
	}
	return nil
}

// merge takes the lesser of both layers; of equals, the upper.
func (c *cursor) merge(from string) bool {
	for {
		high, ok := first(c.l.over[c.b], from)
		if !ok || !c.eof && c.low.key < high.key {
			if c.eof {
				return false
			}
			c.key, c.sealed = c.low.key, c.low.sealed
			if _, right := unseal(bytesOf(c.key), c.sealed); !right {
				c.l.damaged(c.b, c.key, "checksum")
				return false
			}
			return true
		}
		if !c.eof && c.low.key == high.key && !c.step() {
			return false
		}
		if high.sealed != nil {
			c.key, c.sealed = high.key, high.sealed
			return true
		}
		if !strings.HasPrefix(high.key, c.within) {
			return false // a step that removes much would go through all of it each time
		}
		from = high.key + "\x00"
	}
}

func first(t *btree.BTreeG[pair], from string) (p pair, ok bool) {
	if t.Len() == 0 {
		return p, false
	}
	t.AscendGreaterOrEqual(pair{key: from}, func(q pair) bool {
		p, ok = q, true
		return false
	})
	return p, ok
}
