package rules

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A pattern is one rule: a glob per name, with "**" standing for any number of
// names. One that is not anchored is a single glob, for names at any depth.
type pattern struct {
	not      bool // "!": what it matches is not ignored after all
	dirOnly  bool // trailing slash
	anchored bool
	names    []glob
}

// MaxPattern bounds one pattern, in bytes.
const MaxPattern = 4096

func parse(s string) (pattern, error) {
	p, err := parsePattern(s)
	if err != nil {
		return p, fmt.Errorf("pattern %s: %w", strconv.Quote(s), err)
	}
	return p, nil
}

func parsePattern(s string) (p pattern, err error) {
	if len(s) > MaxPattern {
		return p, fmt.Errorf("longer than %d bytes", MaxPattern)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return p, errors.New("a name cannot hold NUL")
	}
	s, p.not = strings.CutPrefix(s, "!")
	s, p.dirOnly = strings.CutSuffix(s, "/")
	s, p.anchored = strings.CutPrefix(s, "/")
	p.anchored = p.anchored || strings.Contains(s, "/")
	if s == "" {
		return p, errors.New("it names nothing")
	}
	for name := range strings.SplitSeq(s, "/") {
		if name == "" || name == "." || name == ".." {
			return p, fmt.Errorf("no path has a name %q", name)
		}
		if name == "**" {
			if n := len(p.names); n == 0 || !p.names[n-1].span {
				p.names = append(p.names, glob{span: true})
			}
			continue
		}
		g, err := parseGlob(name)
		if err != nil {
			return p, err
		}
		p.names = append(p.names, g)
	}
	if n := len(p.names); p.names[n-1].span {
		// "a/**" is what lies beneath a, not a itself.
		each, err := parseGlob("*")
		if err != nil {
			return p, err
		}
		p.names, p.anchored = append(p.names, each), true
	}
	return p, nil
}

func (p *pattern) match(path, base string, dir bool) bool {
	if p.dirOnly && !dir {
		return false
	}
	if !p.anchored {
		return p.names[0].match(base)
	}
	// A later "**" takes what an earlier one could, so only the last is retried.
	i, pos := 0, 0
	span, from := -1, 0
	for pos <= len(path) {
		name, next := cut(path, pos)
		switch {
		case i < len(p.names) && p.names[i].span:
			span, from = i, pos
			i++
			continue
		case i < len(p.names) && p.names[i].match(name):
			i++
			pos = next
			continue
		case span < 0:
			return false
		}
		_, from = cut(path, from)
		i, pos = span+1, from
	}
	return i == len(p.names)
}

// leads tells whether a path beneath the folder could match.
func (p *pattern) leads(path string) bool {
	pos := 0
	for i := range p.names {
		if p.names[i].span || pos > len(path) {
			return true
		}
		name, next := cut(path, pos)
		if !p.names[i].match(name) {
			return false
		}
		pos = next
	}
	return false // it names a folder above, which is then included with all in it
}

// cut returns the name that begins at pos and where the next one begins, which
// is beyond the end after the last.
func cut(path string, pos int) (name string, next int) {
	rest := path[pos:]
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return rest[:i], pos + i + 1
	}
	return rest, len(path) + 1
}
