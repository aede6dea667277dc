// Package rules says which paths of a tree are left out.
//
// Patterns are shell globs over bytes, read as git reads a .gitignore: a pattern
// without a slash names a thing at any depth, one with a slash is anchored at the
// tree's top, a trailing slash means folders only, "!" takes an exclusion back,
// "**" spans folders, and the last pattern that matches wins. What lies beneath
// an ignored folder is ignored, whatever is said about it.
//
// An "only" pattern is always anchored at the top: in a copy of /etc, "passwd"
// is not pam.d/passwd. With such patterns nothing else is replicated but what
// lies beneath a match and the folders that lead to one.
//
// "\" takes the special meaning from the byte after it; "\xHH" is the byte HH.
package rules

import (
	"fmt"
	"strings"

	"github.com/clsync/clsync/signature"
)

// Rules are what Compile made. They are never changed; the zero value and a nil
// pointer ignore nothing.
type Rules struct {
	ignore []pattern
	only   []pattern
}

// Compile reads the patterns of one tree.
func Compile(ignore, only []string) (*Rules, error) {
	r := &Rules{}
	for _, s := range ignore {
		p, err := parse(s)
		if err != nil {
			return nil, fmt.Errorf("ignore: %w", err)
		}
		r.ignore = append(r.ignore, p)
	}
	for _, s := range only {
		p, err := parse(s)
		if err != nil {
			return nil, fmt.Errorf("only: %w", err)
		}
		if p.not {
			return nil, fmt.Errorf("only: pattern %q: an exception belongs in ignore", s)
		}
		p.anchored = true
		r.only = append(r.only, p)
	}
	return r, nil
}

// Ignored tells whether p is left out. isDir says whether a folder stands there;
// of a path that is gone, whether one stood there last.
func (r *Rules) Ignored(p signature.Path, isDir bool) bool {
	if r == nil || len(r.ignore) == 0 && len(r.only) == 0 {
		return false
	}
	s := string(p)
	wanted := len(r.only) == 0
	for start := 0; ; {
		end := len(s)
		if i := strings.IndexByte(s[start:], '/'); i >= 0 {
			end = start + i
		}
		dir := isDir || end < len(s) // what has something beneath it is a folder
		if r.excluded(s[:end], s[start:end], dir) {
			return true
		}
		wanted = wanted || r.included(s[:end], dir)
		if end == len(s) {
			break
		}
		start = end + 1
	}
	return !wanted && !(isDir && r.leads(s))
}

// excluded tells what the ignore patterns say of one path by itself.
func (r *Rules) excluded(path, base string, dir bool) bool {
	for i := len(r.ignore) - 1; i >= 0; i-- {
		if p := &r.ignore[i]; p.match(path, base, dir) {
			return !p.not
		}
	}
	return false
}

func (r *Rules) included(path string, dir bool) bool {
	for i := range r.only {
		if r.only[i].match(path, "", dir) {
			return true
		}
	}
	return false
}

// leads tells whether something beneath the folder could be wanted.
func (r *Rules) leads(path string) bool {
	for i := range r.only {
		if r.only[i].leads(path) {
			return true
		}
	}
	return false
}
