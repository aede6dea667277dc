package index

import (
	"strings"

	"github.com/clsync/clsync/signature"
)

// Ascend yields all records strictly beneath dir, in byte order of the whole path
// ("a-b" comes before "a/b"); beneath "" are all.
func (s *Store) Ascend(dir signature.Path, yield func(signature.Record) bool) {
	prefix := beneath(dir)
	c := s.cursorWithin(records, prefix)
	for ok := c.seek(prefix); ok && strings.HasPrefix(c.key, prefix); ok = c.next() {
		r, ok := s.decode(signature.Path(c.key), c.sealed)
		if !ok || !yield(r) {
			return
		}
	}
}

// Children yields the records directly beneath dir, in byte order of the path. What
// lies deeper is jumped over, not read.
func (s *Store) Children(dir signature.Path, yield func(signature.Record) bool) {
	prefix := beneath(dir)
	c := s.cursorWithin(records, prefix)
	for ok := c.seek(prefix); ok && strings.HasPrefix(c.key, prefix); {
		if i := strings.IndexByte(c.key[len(prefix):], '/'); i >= 0 {
			ok = c.seek(c.key[:len(prefix)+i] + string(rune('/'+1)))
			continue
		}
		r, read := s.decode(signature.Path(c.key), c.sealed)
		if !read || !yield(r) {
			return
		}
		ok = c.next()
	}
}

// Since yields every record that lists a dot which k does not cover, once, in order
// of the least such dot (actor, then seq). What k covers is jumped over.
func (s *Store) Since(k signature.Knowledge, yield func(signature.Record) bool) {
	c := s.cursor(dots)
	for ok := c.seek(""); ok; {
		d, p, whole := splitDotKey(c.key)
		if !whole {
			s.damaged(dots, c.key, "length")
			return
		}
		if k.Covers(d) {
			past, more := pastSeq(d.Actor, k[d.Actor])
			ok = more && c.seek(past)
			continue
		}
		r, led := s.lead(dots, c.key, p)
		if !led {
			return
		}
		if _, lists := r.List(d); !lists {
			s.damaged(dots, c.key, "leads to a record that does not list it")
			return
		}
		if least, _ := leastUnknown(r, k); least == d && !yield(r) {
			return
		}
		ok = c.next()
	}
}

// ByHash yields the paths that show the content h as their version says, in order.
func (s *Store) ByHash(h signature.Hash, yield func(signature.Path) bool) {
	if h.Algorithm == signature.NoHash {
		return
	}
	prefix := hashPrefix(h)
	c := s.cursorWithin(hashes, prefix)
	for ok := c.seek(prefix); ok && strings.HasPrefix(c.key, prefix); ok = c.next() {
		p := signature.Path(c.key[sumLen:])
		r, led := s.lead(hashes, c.key, p)
		if !led || r.Shown.Hash == h && !yield(p) {
			return
		}
	}
}

// ByDot yields the path that lists the version with that dot.
func (s *Store) ByDot(d signature.Dot, yield func(signature.Path) bool) {
	prefix := dotPrefix(d)
	c := s.cursor(dots)
	for ok := c.seek(prefix); ok && strings.HasPrefix(c.key, prefix); ok = c.next() {
		if !yield(signature.Path(c.key[len(prefix):])) {
			return
		}
	}
}

// ByInode yields the paths last seen as names of that inode, in order.
func (s *Store) ByInode(dev, ino uint64, yield func(signature.Path) bool) {
	prefix := inodePrefix(dev, ino)
	c := s.cursorWithin(inodes, prefix)
	for ok := c.seek(prefix); ok && strings.HasPrefix(c.key, prefix); ok = c.next() {
		if !yield(signature.Path(c.key[inodeLen:])) {
			return
		}
	}
}

// lead follows a key to the record that it must lead to.
func (s *Store) lead(from bucket, key string, p signature.Path) (signature.Record, bool) {
	r, ok := s.load(p)
	if !ok {
		s.damaged(from, key, "leads to no record")
	}
	return unshared(r.record), ok
}
