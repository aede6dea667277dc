package monitor

import (
	"strings"

	"github.com/clsync/clsync/signature"
)

// A sink takes what the backends find, as bytes relative to the root, and keeps
// what the reader may see of it.
type sink struct {
	pending *pending
	ignored func(signature.Path) bool
}

func newSink(cfg Config) *sink {
	return &sink{pending: newPending(cfg.Pending), ignored: cfg.Ignored}
}

// hint asks for a look at rel; "" is the root. A path too long to have a record is
// answered by a deep hint on the first folder above it that can.
func (s *sink) hint(rel string, m mark) {
	if s.skip(rel) {
		return
	}
	for rel != "" {
		p, err := signature.ParsePath(rel)
		if err == nil {
			s.pending.add(p, m)
			return
		}
		rel, m = parent(rel), m|deep
	}
	s.pending.add("", m)
}

// named hints a path whose name came or went, and its folder, whose times moved.
func (s *sink) named(rel string, m mark) {
	if s.skip(rel) {
		return
	}
	s.hint(rel, m)
	if rel != "" {
		s.hint(parent(rel), 0)
	}
}

// skip tells whether rel is our own or ignored, itself or with a folder above it.
func (s *sink) skip(rel string) bool {
	if private(rel) {
		return true
	}
	if s.ignored == nil {
		return false
	}
	for i := range len(rel) {
		if rel[i] == '/' && i <= signature.MaxPath && s.ignored(signature.Path(rel[:i])) {
			return true
		}
	}
	return rel != "" && len(rel) <= signature.MaxPath && s.ignored(signature.Path(rel))
}

func private(rel string) bool {
	rest, ok := strings.CutPrefix(rel, signature.Private)
	return ok && (rest == "" || rest[0] == '/')
}

func parent(rel string) string {
	return rel[:max(0, strings.LastIndexByte(rel, '/'))]
}

// join puts two relative paths together; either may be empty.
func join(dir, name string) string {
	if dir == "" || name == "" {
		return dir + name
	}
	return dir + "/" + name
}

// beneath returns path relative to dir, both absolute, and whether it is dir or
// lies in it.
func beneath(dir, path string) (string, bool) {
	if dir == "/" {
		dir = ""
	}
	rest, ok := strings.CutPrefix(path, dir)
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return strings.TrimPrefix(rest, "/"), true
}
