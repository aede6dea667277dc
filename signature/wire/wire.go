// Package wire reads msgpack that strangers may have written.
//
// Check walks a frame before anything is decoded from it: depth and every
// declared length are held against the bytes that are really there, so that five
// bytes cannot claim two billion elements. Reader then decodes by hand; the first
// error sticks, and everything read after it is zero.
package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"
)

// MaxDepth bounds how deep arrays may stand in one another.
const MaxDepth = 12

// ErrFrame is returned for bytes that are not what they should be.
var ErrFrame = errors.New("malformed frame")

// Check walks b and tells whether it is exactly one msgpack value whose depth and
// lengths are within bounds. It allocates nothing but its stack. Maps, extensions
// and floats are not part of the protocol and are refused.
func Check(b []byte) error {
	var left [MaxDepth]uint64 // elements still to come, per depth
	depth := 0
	for pos := 0; ; {
		if pos >= len(b) {
			return fmt.Errorf("%w: ends early", ErrFrame)
		}
		c := b[pos]
		pos++
		var skip, elems uint64
		array := false
		size := func(n int) uint64 {
			if len(b)-pos < n {
				pos = len(b) + 1
				return 0
			}
			var v uint64
			switch n {
			case 1:
				v = uint64(b[pos])
			case 2:
				v = uint64(binary.BigEndian.Uint16(b[pos:]))
			case 4:
				v = uint64(binary.BigEndian.Uint32(b[pos:]))
			}
			pos += n
			return v
		}
		switch {
		case c <= 0x7f, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3:
		case c >= 0x90 && c <= 0x9f:
			array, elems = true, uint64(c&0x0f)
		case c >= 0xa0 && c <= 0xbf:
			skip = uint64(c & 0x1f)
		case c == 0xc4 || c == 0xd9:
			skip = size(1)
		case c == 0xc5 || c == 0xda:
			skip = size(2)
		case c == 0xc6 || c == 0xdb:
			skip = size(4)
		case c == 0xcc || c == 0xd0:
			skip = 1
		case c == 0xcd || c == 0xd1:
			skip = 2
		case c == 0xce || c == 0xd2:
			skip = 4
		case c == 0xcf || c == 0xd3:
			skip = 8
		case c == 0xdc:
			array, elems = true, size(2)
		case c == 0xdd:
			array, elems = true, size(4)
		default:
			return fmt.Errorf("%w: type byte %#02x", ErrFrame, c)
		}
		if pos > len(b) || skip > uint64(len(b)-pos) || elems > uint64(len(b)-pos) {
			return fmt.Errorf("%w: length beyond its end", ErrFrame)
		}
		pos += int(skip)
		if array && elems > 0 {
			if depth == MaxDepth {
				return fmt.Errorf("%w: deeper than %d", ErrFrame, MaxDepth)
			}
			left[depth] = elems
			depth++
			continue
		}
		for depth > 0 {
			left[depth-1]--
			if left[depth-1] > 0 {
				break
			}
			depth--
		}
		if depth == 0 {
			if pos != len(b) {
				return fmt.Errorf("%w: %d bytes too many", ErrFrame, len(b)-pos)
			}
			return nil
		}
	}
}

// A Reader decodes one frame. Check has been run on it by NewReader.
type Reader struct {
	d   *msgpack.Decoder
	len int
	err error
}

// NewReader checks b and returns a Reader of it. A frame that Check refuses gives
// a Reader that has failed already.
func NewReader(b []byte) *Reader {
	return &Reader{d: msgpack.NewDecoder(bytes.NewReader(b)), len: len(b), err: Check(b)}
}

// Err returns the first error.
func (r *Reader) Err() error { return r.err }

// Fail sets an error of the caller's, unless there is one already.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrFrame, fmt.Sprintf(format, args...))
	}
}

func (r *Reader) take(err error) bool {
	if r.err == nil && err != nil {
		r.err = fmt.Errorf("%w: %v", ErrFrame, err)
	}
	return r.err == nil
}

// Array reads an array's length, at most max.
func (r *Reader) Array(max int) int {
	if r.err != nil {
		return 0
	}
	n, err := r.d.DecodeArrayLen()
	if !r.take(err) {
		return 0
	}
	if n < 0 || n > max || n > r.len {
		r.Fail("array of %d, at most %d", n, max)
		return 0
	}
	return n
}

// Tuple reads an array that must have n elements.
func (r *Reader) Tuple(n int) bool {
	if got := r.Array(n); r.err == nil && got != n {
		r.Fail("tuple of %d, want %d", got, n)
	}
	return r.err == nil
}

// peek returns the type byte of what comes next. msgpack takes nil for 0 and for
// nothing, -1 for 2^64-1 and text for bytes; the protocol has one way to say a thing.
func (r *Reader) peek() byte {
	if r.err != nil {
		return 0
	}
	c, err := r.d.PeekCode()
	r.take(err)
	return c
}

// Uint reads an unsigned number, at most max.
func (r *Reader) Uint(max uint64) uint64 {
	if c := r.peek(); r.err == nil && c > 0x7f && (c < 0xcc || c > 0xcf) {
		r.Fail("type byte %#02x where an unsigned number should be", c)
	}
	if r.err != nil {
		return 0
	}
	n, err := r.d.DecodeUint64()
	if !r.take(err) {
		return 0
	}
	if n > max {
		r.Fail("%d, at most %d", n, max)
		return 0
	}
	return n
}

// Int reads a signed number.
func (r *Reader) Int() int64 {
	c := r.peek()
	if r.err == nil && c > 0x7f && c < 0xe0 && (c < 0xcc || c > 0xd3) {
		r.Fail("type byte %#02x where a number should be", c)
	}
	if r.err != nil {
		return 0
	}
	n, err := r.d.DecodeInt64()
	if !r.take(err) {
		return 0
	}
	if c == 0xcf && n < 0 {
		r.Fail("a number beyond 63 bits")
		return 0
	}
	return n
}

// Bool reads a truth value.
func (r *Reader) Bool() bool {
	if c := r.peek(); r.err == nil && c != 0xc2 && c != 0xc3 {
		r.Fail("type byte %#02x where a truth value should be", c)
	}
	if r.err != nil {
		return false
	}
	b, err := r.d.DecodeBool()
	return r.take(err) && b
}

// Bytes reads at most max bytes. The result is a copy.
func (r *Reader) Bytes(max int) []byte {
	if c := r.peek(); r.err == nil && (c < 0xc4 || c > 0xc6) {
		r.Fail("type byte %#02x where bytes should be", c)
	}
	if r.err != nil {
		return nil
	}
	n, err := r.d.DecodeBytesLen()
	if !r.take(err) || n <= 0 {
		return nil
	}
	if n > max || n > r.len {
		r.Fail("%d bytes, at most %d", n, max)
		return nil
	}
	b := make([]byte, n)
	r.take(r.d.ReadFull(b))
	return b
}

// Fixed reads exactly len(b) bytes into b.
func (r *Reader) Fixed(b []byte) {
	got := r.Bytes(len(b))
	if r.err == nil && len(got) != len(b) {
		r.Fail("%d bytes, want %d", len(got), len(b))
		return
	}
	copy(b, got)
}

// A Writer builds one frame in memory.
type Writer struct {
	buf bytes.Buffer
	e   *msgpack.Encoder
}

// NewWriter returns an empty Writer.
func NewWriter() *Writer {
	w := &Writer{}
	w.e = msgpack.NewEncoder(&w.buf)
	w.e.UseCompactInts(true)
	return w
}

// The methods of Writer write what the Reader's read. A buffer in memory takes
// every write, so they have no error to return.

func (w *Writer) must(err error) {
	if err != nil {
		panic("encode into memory: " + err.Error())
	}
}

func (w *Writer) Array(n int)    { w.must(w.e.EncodeArrayLen(n)) }
func (w *Writer) Uint(n uint64)  { w.must(w.e.EncodeUint(n)) }
func (w *Writer) Int(n int64)    { w.must(w.e.EncodeInt(n)) }
func (w *Writer) Bool(b bool)    { w.must(w.e.EncodeBool(b)) }
func (w *Writer) Bytes(b []byte) { w.must(w.e.EncodeBytesLen(len(b))); w.buf.Write(b) }

// String writes bytes that are held in a string; on the wire both are bin.
func (w *Writer) String(s string) { w.must(w.e.EncodeBytesLen(len(s))); w.buf.WriteString(s) }

// Raw appends values that another Writer wrote.
func (w *Writer) Raw(b []byte) { w.buf.Write(b) }

// Len returns how many bytes were written so far.
func (w *Writer) Len() int { return w.buf.Len() }

// Frame returns what was written. The Writer must not be used afterwards.
func (w *Writer) Frame() []byte { return w.buf.Bytes() }
