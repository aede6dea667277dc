package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt trusts its file: a damaged page makes it panic, a shortened file kills the
// process, a branch that leads back to itself exhausts its stack, and a lost page is
// just fewer answers. So every page that can be reached is checked here first, by
// plain reads, in the layout of bbolt's file format version 2: each page once, in
// its bounds, keys in order, checksums right, and the sum over all entries the one
// that was last written.

const (
	pageHeader  = 16
	elementLen  = 16 // of branch and leaf elements alike
	metaLen     = 64
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	branchPage  = 0x01
	leafPage    = 0x02
	metaPage    = 0x04
	freePage    = 0x10
	bucketFlag  = 0x01
	maxDepth    = 32
	maxValue    = 64 << 20
	headerLen   = 16 // of a bucket in its parent
	manyPages   = 0xFFFF
	minPageSize = 512
	maxPageSize = 1 << 20
)

// native is the byte order that bbolt writes: the machine's own.
var native = binary.NativeEndian

// A survey is what verify learned of a sound file.
type survey struct {
	pages, used uint64
	size        int64
	fields      map[string][]byte // the meta bucket, unsealed
}

// verifier walks one file.
type verifier struct {
	r     io.ReaderAt
	size  int64
	page  int64
	high  uint64   // pages from here on do not exist
	seen  []uint64 // a bit per page
	used  uint64
	sum   uint64
	name  bucket
	prev  []byte // the last key of the bucket
	first bool
	bufs  [maxDepth][]byte
	out   survey
}

func verify(f *os.File) (survey, error) {
	st, err := f.Stat()
	if err != nil {
		return survey{}, fmt.Errorf("verify index: %w", err)
	}
	v := &verifier{r: f, size: st.Size(), out: survey{fields: map[string][]byte{}}}
	if err := v.run(); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: ends early", ErrDamaged)
		}
		return survey{}, fmt.Errorf("verify index: %w", err)
	}
	v.out.pages, v.out.used, v.out.size = v.high, v.used, v.size
	return v.out, nil
}

func damage(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

type meta struct {
	root, freelist, high, tx uint64
	page                     uint32
}

// run reads both meta pages. bbolt would go on with the older one if the newer is
// broken, and so take back a commit that was acknowledged: here both must be sound.
func (v *verifier) run() error {
	a, err := v.meta(0)
	if err != nil {
		return err
	}
	v.page = int64(a.page)
	b, err := v.meta(1)
	if err != nil {
		return err
	}
	if a.tx < b.tx {
		a, b = b, a
	}
	if a.page != b.page || a.tx != b.tx+1 {
		return damage("meta pages of transactions %d and %d", a.tx, b.tx)
	}
	if a.high < 4 || a.high > uint64(v.size/v.page) {
		return damage("%d pages in a file of %d bytes", a.high, v.size)
	}
	v.high = a.high
	v.seen = make([]uint64, a.high/64+1)
	v.seen[0] = 3
	v.used = 2
	roots := map[string][]byte{}
	if err := v.tree(a.root, nil, nil, 0, func(k, val []byte, flags uint32) error {
		if flags != bucketFlag || len(val) < headerLen {
			return damage("top level holds %q", k)
		}
		roots[string(k)] = bytes.Clone(val)
		return nil
	}); err != nil {
		return err
	}
	if len(roots) != int(buckets) {
		return damage("%d buckets", len(roots))
	}
	for v.name = range buckets {
		root, ok := roots[bucketNames[v.name]]
		if !ok {
			return damage("no bucket %s", bucketNames[v.name])
		}
		if err := v.bucket(root); err != nil {
			return err
		}
	}
	if err := v.freelist(a.freelist); err != nil {
		return err
	}
	t, ok := decodeTally(v.out.fields[fieldSum])
	if !ok || t.sum != v.sum {
		return damage("the sum over all entries is another")
	}
	return nil
}

func (v *verifier) meta(i int64) (m meta, err error) {
	b := make([]byte, pageHeader+metaLen)
	if _, err := v.r.ReadAt(b, i*v.page); err != nil {
		return m, err
	}
	h := fnv.New64a()
	h.Write(b[pageHeader : pageHeader+metaLen-8]) // never returns an error
	n := b[pageHeader:]
	m = meta{
		page:     native.Uint32(n[8:]),
		root:     native.Uint64(n[16:]),
		freelist: native.Uint64(n[32:]),
		high:     native.Uint64(n[40:]),
		tx:       native.Uint64(n[48:]),
	}
	if native.Uint64(b) != uint64(i) || native.Uint16(b[8:]) != metaPage ||
		native.Uint32(n) != boltMagic || native.Uint32(n[4:]) != boltVersion ||
		native.Uint64(n[56:]) != h.Sum64() || m.page < minPageSize || m.page > maxPageSize {
		return m, damage("meta page %d", i)
	}
	return m, nil
}

// read returns the page with all that overflows from it, marked as seen.
func (v *verifier) read(id uint64, depth int) ([]byte, error) {
	if id < 2 || id >= v.high || depth >= maxDepth {
		return nil, damage("page %d of %d at depth %d", id, v.high, depth)
	}
	b := v.grow(depth, v.page)
	if _, err := v.r.ReadAt(b, int64(id)*v.page); err != nil {
		return nil, err
	}
	over := uint64(native.Uint32(b[12:]))
	if native.Uint64(b) != id || over >= v.high-id {
		return nil, damage("page %d", id)
	}
	for p := id; p <= id+over; p++ {
		if err := v.take(p); err != nil {
			return nil, err
		}
	}
	v.used += over + 1
	if over > 0 {
		b = v.grow(depth, int64(over+1)*v.page)
		if _, err := v.r.ReadAt(b, int64(id)*v.page); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (v *verifier) take(p uint64) error {
	if v.seen[p/64]&(1<<(p%64)) != 0 {
		return damage("page %d is used twice", p)
	}
	v.seen[p/64] |= 1 << (p % 64)
	return nil
}

func (v *verifier) grow(depth int, n int64) []byte {
	if int64(cap(v.bufs[depth])) < n {
		v.bufs[depth] = make([]byte, n)
	}
	v.bufs[depth] = v.bufs[depth][:n]
	return v.bufs[depth]
}

// bucket walks one bucket and adds up what is in it.
func (v *verifier) bucket(header []byte) error {
	root := native.Uint64(header)
	v.first = true
	if root == 0 { // small: the page is in the parent
		return v.leaf(header[headerLen:], nil, nil, v.entry)
	}
	return v.tree(root, nil, nil, 0, v.entry)
}

func (v *verifier) entry(k, val []byte, flags uint32) error {
	if flags != 0 || len(k) > maxKey || len(val) > maxValue {
		return damage("%s %q", bucketNames[v.name], k)
	}
	payload, ok := unseal(k, val)
	if !ok {
		return damage("%s %q: checksum", bucketNames[v.name], k)
	}
	if v.name == metas {
		v.out.fields[string(k)] = bytes.Clone(payload)
		if string(k) == fieldSum {
			return nil
		}
	}
	v.sum += weigh(v.name, val)
	return nil
}

type visit func(k, val []byte, flags uint32) error

// tree walks the pages from id down; all keys must be in [low, high).
func (v *verifier) tree(id uint64, low, high []byte, depth int, f visit) error {
	if depth == 0 {
		v.first = true
	}
	b, err := v.read(id, depth)
	if err != nil {
		return err
	}
	switch native.Uint16(b[8:]) {
	case leafPage:
		if depth > 0 && native.Uint16(b[10:]) == 0 {
			return damage("page %d is empty", id)
		}
		return v.leaf(b, low, high, f)
	case branchPage:
		return v.branch(id, b, low, high, depth, f)
	}
	return damage("page %d is neither branch nor leaf", id)
}

func (v *verifier) branch(id uint64, b, low, high []byte, depth int, f visit) error {
	n := int(native.Uint16(b[10:]))
	if n == 0 || pageHeader+n*elementLen > len(b) {
		return damage("page %d has %d branches", id, n)
	}
	key := func(i int) ([]byte, error) {
		at := pageHeader + i*elementLen
		return part(b, uint64(at)+uint64(native.Uint32(b[at:])), uint64(native.Uint32(b[at+4:])))
	}
	k, err := key(0)
	if err != nil {
		return err
	}
	for i := range n {
		end := high
		if i+1 < n {
			if end, err = key(i + 1); err != nil {
				return err
			}
		}
		if bytes.Compare(k, low) < 0 || end != nil && bytes.Compare(k, end) >= 0 {
			return damage("page %d: branches out of order", id)
		}
		child := native.Uint64(b[pageHeader+i*elementLen+8:])
		if err := v.tree(child, k, end, depth+1, f); err != nil {
			return err
		}
		k = end
	}
	return nil
}

func (v *verifier) leaf(b, low, high []byte, f visit) error {
	if len(b) < pageHeader || native.Uint16(b[8:]) != leafPage {
		return damage("no leaf where one should be")
	}
	n := int(native.Uint16(b[10:]))
	if pageHeader+n*elementLen > len(b) {
		return damage("leaf of %d", n)
	}
	for i := range n {
		at := pageHeader + i*elementLen
		pos := uint64(at) + uint64(native.Uint32(b[at+4:]))
		klen := uint64(native.Uint32(b[at+8:]))
		k, err := part(b, pos, klen)
		if err != nil {
			return err
		}
		val, err := part(b, pos+klen, uint64(native.Uint32(b[at+12:])))
		if err != nil {
			return err
		}
		if !v.first && bytes.Compare(v.prev, k) >= 0 || bytes.Compare(k, low) < 0 ||
			high != nil && bytes.Compare(k, high) >= 0 {
			return damage("key %q out of order", k)
		}
		v.first = false
		v.prev = append(v.prev[:0], k...)
		if err := f(k, val, native.Uint32(b[at:])); err != nil {
			return err
		}
	}
	return nil
}

func part(b []byte, at, n uint64) ([]byte, error) {
	if at > uint64(len(b)) || n > uint64(len(b))-at {
		return nil, damage("an element outside its page")
	}
	return b[at : at+n : at+n], nil
}

// freelist holds what may be overwritten: nothing in use, and nothing twice. Pages
// that are neither are lost until the next compaction, and harmless.
func (v *verifier) freelist(id uint64) error {
	b, err := v.read(id, 0)
	if err != nil {
		return err
	}
	n, at := uint64(native.Uint16(b[10:])), uint64(pageHeader)
	if n == manyPages {
		n, at = native.Uint64(b[at:]), at+8
	}
	if native.Uint16(b[8:]) != freePage || n > (uint64(len(b))-at)/8 {
		return damage("free list of %d", n)
	}
	for range n {
		p := native.Uint64(b[at:])
		at += 8
		if p >= v.high {
			return damage("free page %d of %d", p, v.high)
		}
		if err := v.take(p); err != nil {
			return err
		}
	}
	return nil
}
