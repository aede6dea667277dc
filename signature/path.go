package signature

import (
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// Private is the name of the folder at a tree's top that holds staging, the
// grace pool and the conflict store. It is never replicated, and a peer that
// names it is refused.
const Private = ".clsync"

// MaxPath and MaxName bound a path and one name in it, in bytes, as Linux does.
const (
	MaxPath = 4095
	MaxName = 255
)

// ErrPath is returned for bytes that are no path beneath a tree's root.
var ErrPath = errors.New("not a path beneath the root")

// A Path is relative to its tree's root: bytes, not text; slash-separated;
// never empty, absolute, or with "." or "..". The root itself has no Path.
type Path string

// ParsePath checks bytes from outside. It refuses what is not clean rather than
// cleaning it: two spellings of one path would be two records.
func ParsePath(s string) (Path, error) {
	if s == "" || len(s) > MaxPath {
		return "", fmt.Errorf("%w: length %d", ErrPath, len(s))
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "", fmt.Errorf("%w: NUL in %s", ErrPath, strconv.Quote(s))
	}
	for i, rest, more := 0, s, true; more; i++ {
		var name string
		name, rest, more = strings.Cut(rest, "/")
		switch {
		case name == "" || name == "." || name == ".." || len(name) > MaxName:
			return "", fmt.Errorf("%w: %s", ErrPath, strconv.Quote(s))
		case i == 0 && name == Private:
			return "", fmt.Errorf("%w: %s is clsync's own", ErrPath, strconv.Quote(s))
		}
	}
	return Path(s), nil
}

// Parent returns the folder that holds p, and false where that is the root.
func (p Path) Parent() (Path, bool) {
	i := strings.LastIndexByte(string(p), '/')
	if i < 0 {
		return "", false
	}
	return p[:i], true
}

// Base returns the last name of p.
func (p Path) Base() string {
	return string(p[strings.LastIndexByte(string(p), '/')+1:])
}

// In tells whether p lies beneath dir, at any depth. Nothing lies beneath itself.
func (p Path) In(dir Path) bool {
	return len(p) > len(dir) && p[len(dir)] == '/' && p[:len(dir)] == dir
}

// Quote returns p for people and logs: as it is where it is plain, with Go's
// escapes where it holds control bytes, quotes or bytes that are not UTF-8.
func (p Path) Quote() string { return Quote(string(p)) }

// Quote does for any bytes what Path.Quote does for a path.
func Quote(s string) string {
	q := strconv.Quote(s)
	if q == `"`+s+`"` && !strings.ContainsAny(s, " ") {
		return s
	}
	return q
}

// String returns the bytes of p as they are. People and logs get Quote.
func (p Path) String() string { return string(p) }

// Names yields the names of p from the top down.
func (p Path) Names() iter.Seq[string] { return strings.SplitSeq(string(p), "/") }
