package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
	"pgregory.net/rapid"
)

// reference is Check written the slow and plain way: it takes one value off b.
func reference(b []byte, depth int) (rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, false
	}
	c, b := b[0], b[1:]
	number := func(n int) (v uint64) {
		if len(b) < n {
			ok = false
			return 0
		}
		for _, x := range b[:n] {
			v = v<<8 | uint64(x)
		}
		b = b[n:]
		return v
	}
	ok = true
	var bytes, elements uint64
	switch {
	case c < 0x80, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3:
	case c >= 0x90 && c < 0xa0:
		elements = uint64(c - 0x90)
	case c >= 0xa0 && c < 0xc0:
		bytes = uint64(c - 0xa0)
	case c == 0xc4, c == 0xd9:
		bytes = number(1)
	case c == 0xc5, c == 0xda:
		bytes = number(2)
	case c == 0xc6, c == 0xdb:
		bytes = number(4)
	case c >= 0xcc && c <= 0xcf:
		bytes = 1 << (c - 0xcc)
	case c >= 0xd0 && c <= 0xd3:
		bytes = 1 << (c - 0xd0)
	case c == 0xdc:
		elements = number(2)
	case c == 0xdd:
		elements = number(4)
	default:
		return nil, false
	}
	if !ok || bytes > uint64(len(b)) || elements > 0 && depth == MaxDepth {
		return nil, false
	}
	b = b[bytes:]
	for range elements {
		if b, ok = reference(b, depth+1); !ok {
			return nil, false
		}
	}
	return b, true
}

// agree holds Check against the reference and against msgpack itself.
func agree(t interface {
	Helper()
	Fatalf(string, ...any)
}, b []byte) {
	t.Helper()
	err := Check(b)
	rest, ok := reference(b, 0)
	if want := ok && len(rest) == 0; want != (err == nil) {
		t.Fatalf("%x: %v, want valid: %v", b, err, want)
	}
	if err != nil {
		if !errors.Is(err, ErrFrame) {
			t.Fatalf("%x: %v", b, err)
		}
		return
	}
	r := bytes.NewReader(b)
	if _, err := msgpack.NewDecoder(r).DecodeInterface(); err != nil || r.Len() != 0 {
		t.Fatalf("%x: msgpack says %v with %d left", b, err, r.Len())
	}
}

func FuzzCheck(f *testing.F) {
	for _, tt := range frames {
		f.Add(tt.frame)
	}
	f.Fuzz(func(t *testing.T, b []byte) { agree(t, b) })
}

var frames = []struct {
	name  string
	frame []byte
	valid bool
}{
	{"nothing", nil, false},
	{"a small number", []byte{7}, true},
	{"two values", []byte{7, 7}, false},
	{"empty array", []byte{0x90}, true},
	{"two billion elements in five bytes", []byte{0xdd, 0x7f, 0xff, 0xff, 0xff}, false},
	{"four billion elements in five bytes", []byte{0xdd, 0xff, 0xff, 0xff, 0xff}, false},
	{"four billion bytes in five", []byte{0xc6, 0xff, 0xff, 0xff, 0xff}, false},
	{"a length cut off", []byte{0xdd, 0, 0}, false},
	{"a text cut off", []byte{0xa5, 'a'}, false},
	{"a number cut off", []byte{0xcf, 1, 2, 3}, false},
	{"map", []byte{0x80}, false},
	{"map of 32 bits", []byte{0xdf, 0, 0, 0, 0}, false},
	{"extension", []byte{0xd4, 1, 2}, false},
	{"float", []byte{0xca, 0, 0, 0, 0}, false},
	{"never used", []byte{0xc1}, false},
	{"as deep as may be", append(bytes.Repeat([]byte{0x91}, MaxDepth), 0), true},
	{"one deeper", append(bytes.Repeat([]byte{0x91}, MaxDepth+1), 0), false},
	{"an empty array at the bottom", append(bytes.Repeat([]byte{0x91}, MaxDepth), 0x90), true},
	{"a million deep", bytes.Repeat([]byte{0x91}, 1<<20), false},
	{"every array claims the rest", bytes.Repeat([]byte{0xdc, 0, 9}, 9), false},
	{"back up and on", []byte{0x93, 0x92, 1, 0x91, 2, 0x90, 3}, true},
	{"one short", []byte{0x93, 0x92, 1, 0x91, 2, 0x90}, false},
}

func TestCheck(t *testing.T) {
	for _, tt := range frames {
		t.Run(tt.name, func(t *testing.T) {
			if err := Check(tt.frame); (err == nil) != tt.valid {
				t.Errorf("%v", err)
			}
			agree(t, tt.frame)
		})
	}
}

// Random bytes are hardly ever valid; frames that are, and frames nearly so, are made.
func TestCheckAgreesOnNearlyValidFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := drawValue(t, rapid.IntRange(0, MaxDepth+1).Draw(t, "depth"))
		agree(t, b)
		switch rapid.IntRange(0, 3).Draw(t, "harm") {
		case 0:
			b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case 1:
			b = b[:rapid.IntRange(0, len(b)-1).Draw(t, "length")]
		case 2:
			b = append(b, rapid.Byte().Draw(t, "more"))
		}
		agree(t, b)
	})
}

func drawValue(t *rapid.T, depth int) []byte {
	w := NewWriter()
	var value func(depth int)
	value = func(depth int) {
		kind := rapid.IntRange(0, 4).Draw(t, "kind")
		if depth > 0 && rapid.IntRange(0, 2).Draw(t, "deeper") > 0 {
			kind = 5
		}
		switch kind {
		case 0:
			w.Uint(rapid.Uint64().Draw(t, "uint"))
		case 1:
			w.Int(rapid.Int64().Draw(t, "int"))
		case 2:
			w.Bool(rapid.Bool().Draw(t, "bool"))
		case 3:
			w.Bytes(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes"))
		case 4:
			w.Array(0)
		case 5:
			n := rapid.IntRange(1, 3).Draw(t, "n")
			w.Array(n)
			for range n {
				value(depth - 1)
			}
		}
	}
	value(depth)
	return w.Frame()
}

func TestCheckAllocatesNothing(t *testing.T) {
	w := NewWriter()
	w.Array(1000)
	for i := range 1000 {
		w.Uint(uint64(i))
	}
	b := w.Frame()
	if n := testing.AllocsPerRun(20, func() {
		if err := Check(b); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What a hostile frame makes the Reader allocate stays near the frame's own length,
// whatever it claims and whatever is asked of it.
func TestReaderAllocatesByLength(t *testing.T) {
	for _, tt := range frames {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := NewReader(tt.frame)
		for n := r.Array(math.MaxInt); n > 0 && r.Err() == nil; n-- {
			r.Bytes(math.MaxInt)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > uint64(4*len(tt.frame))+64<<10 {
			t.Errorf("%s: %d bytes for a frame of %d", tt.name, got, len(tt.frame))
		}
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u, i := rapid.Uint64().Draw(t, "uint"), rapid.Int64().Draw(t, "int")
		yes, p := rapid.Bool().Draw(t, "bool"), rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
		s := strings.Repeat("\xff\x00é", rapid.IntRange(0, 30000).Draw(t, "times"))
		w := NewWriter()
		w.Array(5)
		w.Uint(u)
		w.Int(i)
		w.Bool(yes)
		w.Bytes(p)
		w.String(s)
		n := w.Len()
		r := NewReader(w.Frame())
		if !r.Tuple(5) || r.Uint(math.MaxUint64) != u || r.Int() != i || r.Bool() != yes ||
			!bytes.Equal(r.Bytes(len(p)), p) || string(r.Bytes(len(s))) != s || r.Err() != nil {
			t.Fatalf("read something else: %v", r.Err())
		}
		if n != len(w.Frame()) {
			t.Fatalf("length %d of %d", n, len(w.Frame()))
		}
	})
}

func TestReaderIsStrict(t *testing.T) {
	big := binary.BigEndian.AppendUint64([]byte{0xcf}, 1<<63)
	for name, tt := range map[string]struct {
		frame []byte
		read  func(*Reader)
	}{
		"number above max":         {[]byte{9}, func(r *Reader) { r.Uint(8) }},
		"negative as unsigned":     {[]byte{0xff}, func(r *Reader) { r.Uint(math.MaxUint64) }},
		"int8 as unsigned":         {[]byte{0xd0, 0xff}, func(r *Reader) { r.Uint(math.MaxUint64) }},
		"int64 as unsigned":        {append([]byte{0xd3}, big[1:]...), func(r *Reader) { r.Uint(math.MaxUint64) }},
		"nil as unsigned":          {[]byte{0xc0}, func(r *Reader) { r.Uint(8) }},
		"nil as number":            {[]byte{0xc0}, func(r *Reader) { r.Int() }},
		"2^63 as number":           {big, func(r *Reader) { r.Int() }},
		"nil as bytes":             {[]byte{0xc0}, func(r *Reader) { r.Bytes(8) }},
		"text as bytes":            {[]byte{0xa1, 'a'}, func(r *Reader) { r.Bytes(8) }},
		"nil as array":             {[]byte{0xc0}, func(r *Reader) { r.Array(8) }},
		"nil as truth":             {[]byte{0xc0}, func(r *Reader) { r.Bool() }},
		"1 as truth":               {[]byte{1}, func(r *Reader) { r.Bool() }},
		"bytes above max":          {[]byte{0xc4, 2, 1, 1}, func(r *Reader) { r.Bytes(1) }},
		"bytes short of fixed":     {[]byte{0xc4, 1, 1}, func(r *Reader) { r.Fixed(make([]byte, 2)) }},
		"bytes where a number is":  {[]byte{0xc4, 0}, func(r *Reader) { r.Uint(8) }},
		"array above max":          {[]byte{0x92, 1, 1}, func(r *Reader) { r.Array(1) }},
		"tuple too short":          {[]byte{0x91, 1}, func(r *Reader) { r.Tuple(2) }},
		"past the end":             {[]byte{0x91, 1}, func(r *Reader) { r.Tuple(1); r.Uint(1); r.Uint(1) }},
		"a frame that Check hates": {[]byte{0x91}, func(r *Reader) { r.Array(1) }},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewReader(tt.frame)
			tt.read(r)
			first := r.Err()
			if !errors.Is(first, ErrFrame) {
				t.Fatalf("err %v", first)
			}
			// The first error sticks, and everything read after it is zero.
			r.Fail("another")
			if r.Uint(9) != 0 || r.Int() != 0 || r.Bool() || r.Bytes(9) != nil || r.Array(9) != 0 || r.Tuple(0) || r.Err() != first {
				t.Errorf("goes on after %v", first)
			}
		})
	}
}

// FuzzReader asks for things in an order that the fuzzer chooses.
func FuzzReader(f *testing.F) {
	for _, tt := range frames {
		f.Add(tt.frame, []byte("auibf"))
	}
	f.Fuzz(func(t *testing.T, b, asks []byte) {
		r := NewReader(b)
		if r.Err() != nil != (Check(b) != nil) {
			t.Fatalf("%v", r.Err())
		}
		for _, a := range asks {
			failed := r.Err() != nil
			var zero bool
			switch a % 5 {
			case 0:
				n := r.Array(1000)
				zero = n == 0
				if n > len(b) {
					t.Fatalf("array of %d in %d bytes", n, len(b))
				}
			case 1:
				zero = r.Uint(1<<40) == 0
			case 2:
				zero = r.Int() == 0
			case 3:
				p := r.Bytes(1000)
				zero = p == nil
				if len(p) > len(b) {
					t.Fatalf("%d bytes of %d", len(p), len(b))
				}
			case 4:
				zero = !r.Bool()
			}
			if (failed || r.Err() != nil) && !zero {
				t.Fatalf("an answer beside %v", r.Err())
			}
		}
	})
}
