package config

import (
	"strconv"
	"strings"
)

// The toml library tells no lines of keys. lines finds them in a text that the
// library has parsed, so every string and bracket in it is known to be closed.
//
// The result maps a key's full name to its line: "name", "gossip.seeds",
// "tree[1].path"; tables too: "gossip", "tree[1]".
func lines(text string) map[string]int {
	s := scanner{text: text, line: 1, at: map[string]int{}, count: map[string]int{}}
	for s.pos < len(s.text) {
		s.statement()
	}
	return s.at
}

type scanner struct {
	text  string
	pos   int
	line  int
	table string
	at    map[string]int
	count map[string]int // of array tables
}

func (s *scanner) statement() {
	switch c := s.text[s.pos]; {
	case c == '\n' || c == ' ' || c == '\t' || c == '\r':
		s.skip(1)
	case c == '#':
		s.comment()
	case strings.HasPrefix(s.text[s.pos:], "[["):
		s.skip(2)
		name := s.key(']')
		s.skip(2)
		s.table = name + "[" + strconv.Itoa(s.count[name]) + "]"
		s.count[name]++
		s.at[s.table] = s.line
	case c == '[':
		s.skip(1)
		s.table = s.key(']')
		s.skip(1)
		s.note(s.table)
	default:
		line := s.line
		name := s.key('=')
		s.skip(1)
		if s.table != "" {
			name = s.table + "." + name
		}
		for i := range name { // a dotted key makes the tables above it
			if name[i] == '.' {
				s.note(name[:i])
			}
		}
		s.at[name] = line
		s.value()
	}
}

func (s *scanner) note(name string) {
	if _, ok := s.at[name]; !ok {
		s.at[name] = s.line
	}
}

// skip goes on by n bytes and counts lines.
func (s *scanner) skip(n int) {
	end := min(s.pos+n, len(s.text))
	s.line += strings.Count(s.text[s.pos:end], "\n")
	s.pos = end
}

func (s *scanner) comment() {
	if i := strings.IndexByte(s.text[s.pos:], '\n'); i >= 0 {
		s.skip(i)
		return
	}
	s.pos = len(s.text)
}

// key reads a dotted key up to the byte that ends it.
func (s *scanner) key(end byte) string {
	var name strings.Builder
	for s.pos < len(s.text) && s.text[s.pos] != end {
		switch c := s.text[s.pos]; c {
		case ' ', '\t':
			s.skip(1)
		case '"', '\'':
			from := s.pos
			s.str()
			quoted := s.text[from:s.pos]
			if plain, err := strconv.Unquote(quoted); err == nil && c == '"' {
				name.WriteString(plain)
			} else {
				name.WriteString(strings.Trim(quoted, `"'`))
			}
		default:
			name.WriteByte(c)
			s.skip(1)
		}
	}
	return name.String()
}

// value goes on to the end of the line on which a value ends.
func (s *scanner) value() {
	for depth := 0; s.pos < len(s.text); {
		switch s.text[s.pos] {
		case '\n':
			if depth == 0 {
				return
			}
			s.skip(1)
		case '#':
			s.comment()
		case '"', '\'':
			s.str()
		case '[', '{':
			depth++
			s.skip(1)
		case ']', '}':
			depth--
			s.skip(1)
		default:
			s.skip(1)
		}
	}
}

// str goes on to the end of a string.
func (s *scanner) str() {
	quote := s.text[s.pos : s.pos+1]
	escapes := quote == `"`
	if long := strings.Repeat(quote, 3); strings.HasPrefix(s.text[s.pos:], long) {
		quote = long
	}
	s.skip(len(quote))
	for s.pos < len(s.text) {
		switch rest := s.text[s.pos:]; {
		case escapes && rest[0] == '\\':
			s.skip(2)
		case strings.HasPrefix(rest, quote):
			s.skip(len(quote))
			for len(quote) == 3 && s.pos < len(s.text) && s.text[s.pos] == quote[0] {
				s.skip(1) // up to two quotes may stand before the closing ones
			}
			return
		default:
			s.skip(1)
		}
	}
}
