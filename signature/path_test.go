package signature

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

var paths = []struct {
	s     string
	valid bool
}{
	{"a", true},
	{"a/b/c", true},
	{"...", true},
	{"a/...", true},
	{".a", true},
	{"..a", true},
	{"a..", true},
	{" ", true},
	{"a b", true},
	{"-", true},
	{"\xff\xfe", true},
	{"line\nbreak", true},
	{`back\slash`, true},
	{"a/.clsync", true},
	{".clsync2", true},
	{".clsyn", true},
	{strings.Repeat("n", MaxName), true},
	{strings.Repeat("n/", MaxPath/2) + "n", true},

	{"", false},
	{".", false},
	{"..", false},
	{"/", false},
	{"/a", false},
	{"a/", false},
	{"a//b", false},
	{"./a", false},
	{"a/.", false},
	{"a/./b", false},
	{"../a", false},
	{"a/..", false},
	{"a/../b", false},
	{"a\x00b", false},
	{"\x00", false},
	{".clsync", false},
	{".clsync/staging", false},
	{strings.Repeat("n", MaxName+1), false},
	{"a/" + strings.Repeat("n", MaxName+1), false},
	{strings.Repeat("n/", MaxPath/2+1) + "n", false},
}

func TestParsePath(t *testing.T) {
	for _, tt := range paths {
		p, err := ParsePath(tt.s)
		if (err == nil) != tt.valid || err == nil && string(p) != tt.s || err != nil && (p != "" || !errors.Is(err, ErrPath)) {
			t.Errorf("ParsePath(%.40q) = %.40q, %v", tt.s, string(p), err)
		}
	}
}

// What is parsed is bytes as they came, and never leads out of the root.
func FuzzParsePath(f *testing.F) {
	for _, tt := range paths {
		f.Add(tt.s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePath(s)
		want := len(s) > 0 && len(s) <= MaxPath && !strings.Contains(s, "\x00")
		names := strings.Split(s, "/")
		for _, n := range names {
			want = want && n != "" && n != "." && n != ".." && len(n) <= MaxName
		}
		want = want && names[0] != Private
		if (err == nil) != want || err == nil && string(p) != s {
			t.Fatalf("ParsePath(%q) = %q, %v", s, string(p), err)
		}
		if err != nil {
			return
		}
		if p.Base() != names[len(names)-1] {
			t.Fatalf("base of %q: %q", s, p.Base())
		}
		dir, ok := p.Parent()
		if ok != (len(names) > 1) || ok && (string(dir)+"/"+p.Base() != s || !p.In(dir) || dir.In(p)) || p.In(p) {
			t.Fatalf("parent of %q: %q, %v", s, string(dir), ok)
		}
		if q := p.Quote(); !utf8.ValidString(q) || strings.ContainsAny(q, "\n\r\x1b") {
			t.Fatalf("quoted %q", q)
		}
	})
}

func TestIn(t *testing.T) {
	for _, tt := range []struct {
		p, dir Path
		want   bool
	}{
		{"a/b", "a", true},
		{"a/b/c", "a", true},
		{"a/b/c", "a/b", true},
		{"a", "a", false},
		{"a", "a/b", false},
		{"a-b", "a", false},
		{"ab/c", "a", false},
		{"b/a", "a", false},
	} {
		if got := tt.p.In(tt.dir); got != tt.want {
			t.Errorf("%s in %s: %v", tt.p, tt.dir, got)
		}
	}
}

func TestQuote(t *testing.T) {
	for _, tt := range []struct {
		p    Path
		want string
	}{
		{"plain/file-1.txt", "plain/file-1.txt"},
		{"é", "é"},
		{"a b", `"a b"`},
		{"a\nb", `"a\nb"`},
		{"\xff", `"\xff"`},
		{`a"b`, `"a\"b"`},
		{"\x1b[31m", `"\x1b[31m"`},
	} {
		if got := tt.p.Quote(); got != tt.want {
			t.Errorf("quote %q: %s, want %s", string(tt.p), got, tt.want)
		}
	}
}
