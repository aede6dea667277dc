package signature

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrXattrs is returned for an encoding of attributes that EncodeXattrs would not make.
var ErrXattrs = errors.New("malformed extended attributes")

// ErrUnkept is returned when all was set but attributes that the file system does
// not support.
var ErrUnkept = errors.New("the file system does not keep these attributes")

// An Xattr is one extended attribute.
type Xattr struct{ Name, Value string }

// EncodeXattrs gives the canonical encoding: sorted by name, each as
// name length (2 bytes), name, value length (4 bytes), value; big endian. No
// attributes are the empty string.
func EncodeXattrs(xs []Xattr) Xattrs {
	if len(xs) == 0 {
		return ""
	}
	xs = slices.Clone(xs)
	slices.SortFunc(xs, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	var b []byte
	for _, x := range xs {
		b = binary.BigEndian.AppendUint16(b, uint16(len(x.Name)))
		b = append(b, x.Name...)
		b = binary.BigEndian.AppendUint32(b, uint32(len(x.Value)))
		b = append(b, x.Value...)
	}
	return Xattrs(b)
}

// DecodeXattrs reads it back. Names are at most 255 bytes without NUL, values at
// most 64 KiB, both as Linux has it.
func DecodeXattrs(e Xattrs) ([]Xattr, error) {
	var xs []Xattr
	for b := []byte(e); len(b) > 0; {
		if len(b) < 2 {
			return nil, fmt.Errorf("%w: cut off", ErrXattrs)
		}
		n := int(binary.BigEndian.Uint16(b))
		b = b[2:]
		if n == 0 || n > 255 || len(b) < n+4 {
			return nil, fmt.Errorf("%w: name of %d bytes", ErrXattrs, n)
		}
		name := string(b[:n])
		b = b[n:]
		v := binary.BigEndian.Uint32(b)
		b = b[4:]
		if v > 64<<10 || uint64(len(b)) < uint64(v) {
			return nil, fmt.Errorf("%w: value of %d bytes", ErrXattrs, v)
		}
		if strings.IndexByte(name, 0) >= 0 || len(xs) > 0 && xs[len(xs)-1].Name >= name {
			return nil, fmt.Errorf("%w: name %q", ErrXattrs, name)
		}
		xs = append(xs, Xattr{name, string(b[:v])})
		b = b[v:]
	}
	return xs, nil
}
