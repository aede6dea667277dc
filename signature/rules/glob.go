package rules

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A glob matches one name. The plain kinds, which most patterns are, cost one
// comparison of strings.
type glob struct {
	span   bool // "**"
	simple bool // prefix, or prefix*suffix where star is set
	star   bool
	prefix string
	suffix string
	tokens []token
}

type tokenKind uint8

const (
	literal tokenKind = iota
	one               // ?
	many              // *
	class             // [...]
)

type token struct {
	kind tokenKind
	lit  byte
	set  *[256]bool
}

func parseGlob(s string) (glob, error) {
	var ts []token
	for i := 0; i < len(s); {
		t, n, err := parseToken(s[i:])
		if err != nil {
			return glob{}, err
		}
		i += n
		if t.kind == many && len(ts) > 0 && ts[len(ts)-1].kind == many {
			continue
		}
		ts = append(ts, t)
	}
	return newGlob(ts), nil
}

func newGlob(ts []token) glob {
	g := glob{simple: true}
	var part strings.Builder
	for _, t := range ts {
		switch {
		case t.kind == literal:
			part.WriteByte(t.lit)
		case t.kind == many && !g.star:
			g.star, g.prefix = true, part.String()
			part.Reset()
		default:
			return glob{tokens: ts}
		}
	}
	if g.star {
		g.suffix = part.String()
	} else {
		g.prefix = part.String()
	}
	return g
}

func parseToken(s string) (t token, n int, err error) {
	switch s[0] {
	case '*':
		return token{kind: many}, 1, nil
	case '?':
		return token{kind: one}, 1, nil
	case '[':
		return parseClass(s)
	}
	b, n, err := parseByte(s)
	return token{lit: b}, n, err
}

// parseByte reads a byte that may be quoted.
func parseByte(s string) (b byte, n int, err error) {
	if s[0] != '\\' {
		return s[0], 1, nil
	}
	if len(s) < 2 {
		return 0, 0, errors.New(`a "\" at the end quotes nothing`)
	}
	if s[1] != 'x' {
		return s[1], 2, nil
	}
	if len(s) < 4 {
		return 0, 0, errors.New(`"\x" wants two hexadecimal digits`)
	}
	v, err := strconv.ParseUint(s[2:4], 16, 8)
	if err != nil || v == 0 || v == '/' {
		return 0, 0, fmt.Errorf("%q is no byte of a name", s[:4])
	}
	return byte(v), 4, nil
}

// parseClass reads [abc], [a-z], and with ! or ^ what is not in it. A "]" that
// comes first stands for itself.
func parseClass(s string) (t token, n int, err error) {
	open := errors.New(`"[" without its "]"`)
	set := new([256]bool)
	i, negated := 1, false
	if i < len(s) && (s[i] == '!' || s[i] == '^') {
		negated = true
		i++
	}
	for first := true; ; first = false {
		if i >= len(s) {
			return t, 0, open
		}
		if s[i] == ']' && !first {
			break
		}
		lo, n, err := parseByte(s[i:])
		if err != nil {
			return t, 0, err
		}
		i += n
		hi := lo
		if i+1 < len(s) && s[i] == '-' && s[i+1] != ']' {
			if hi, n, err = parseByte(s[i+1:]); err != nil {
				return t, 0, err
			}
			i += 1 + n
		}
		if hi < lo {
			return t, 0, fmt.Errorf("the range %q-%q is empty", lo, hi)
		}
		for b := int(lo); b <= int(hi); b++ {
			set[b] = true
		}
	}
	if negated {
		for b := range set {
			set[b] = !set[b]
		}
	}
	return token{kind: class, set: set}, i + 1, nil
}

func (g *glob) match(name string) bool {
	switch {
	case g.span:
		return false
	case g.simple && g.star:
		return len(name) >= len(g.prefix)+len(g.suffix) &&
			strings.HasPrefix(name, g.prefix) && strings.HasSuffix(name, g.suffix)
	case g.simple:
		return name == g.prefix
	}
	i, pos := 0, 0
	star, from := -1, 0 // a later star takes what an earlier one could
	for pos < len(name) {
		if i < len(g.tokens) {
			t := &g.tokens[i]
			if t.kind == many {
				star, from = i, pos
				i++
				continue
			}
			if t.kind == one || t.kind == literal && t.lit == name[pos] || t.kind == class && t.set[name[pos]] {
				i++
				pos++
				continue
			}
		}
		if star < 0 {
			return false
		}
		from++
		i, pos = star+1, from
	}
	for i < len(g.tokens) && g.tokens[i].kind == many {
		i++
	}
	return i == len(g.tokens)
}
