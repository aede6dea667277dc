package rules

import (
	"path"
	"strings"
	"testing"

	"github.com/clsync/clsync/signature"
)

func TestIgnore(t *testing.T) {
	tests := []struct {
		patterns string // space-separated
		path     string // a trailing slash says that a folder stands there
		want     bool
	}{
		{"*.o", "a.o", true},
		{"*.o", "src/deep/a.o", true},
		{"*.o", "a.oo", false},
		{"*.o", ".o", true},
		{"cache", "cache", true},
		{"cache", "a/cache", true},
		{"cache", "a/cache/b/c", true},
		{"cache", "cached", false},
		{"/cache", "cache", true},
		{"/cache", "a/cache", false},
		{"cache/", "cache", false},
		{"cache/", "cache/", true},
		{"cache/", "cache/x", true},
		{"a/b", "a/b", true},
		{"a/b", "x/a/b", false},
		{"**/a/b", "x/a/b", true},
		{"**/a/b", "a/b", true},
		{"a/**/b", "a/b", true},
		{"a/**/b", "a/x/y/b", true},
		{"a/**/b", "a/x/y/c", false},
		{"a/**/b/**/c", "a/b/x/b/y/c", true},
		{"a/**", "a/", false},
		{"a/**", "a/x", true},
		{"**", "x", true},
		{"a*b*c", "aXbYc", true},
		{"a*b*c", "abcabc", true},
		{"a*b*c", "ab", false},
		{"ab*bc", "abc", false},
		{"?", "x", true},
		{"?", "xy", false},
		{"a?c", "abc", true},
		{"[a-c]x", "bx", true},
		{"[!a-c]x", "bx", false},
		{"[^a-c]x", "dx", true},
		{"[]]", "]", true},
		{"[a-]", "-", true},
		{"[\\]]", "]", true},
		{"\\*", "*", true},
		{"\\*", "x", false},
		{"\\!x", "!x", true},
		{"caf\\xe9", "caf\xe9", true},
		{"caf[\\xe0-\\xef]", "caf\xe9", true},
		{"?", "\xff", true},
		{"*.log !keep.log", "x.log", true},
		{"*.log !keep.log", "keep.log", false},
		{"!keep.log *.log", "keep.log", true},
		{"logs/ !logs/keep", "logs/keep", true},
		{"a\nb", "a\nb", true},
		{"-rf", "-rf", true},
	}
	for _, tt := range tests {
		r, err := Compile(strings.Split(tt.patterns, " "), nil)
		if err != nil {
			t.Errorf("Compile(%q): %v", tt.patterns, err)
			continue
		}
		p, dir := strings.CutSuffix(tt.path, "/")
		if got := r.Ignored(signature.Path(p), dir); got != tt.want {
			t.Errorf("%q: Ignored(%q) = %v", tt.patterns, tt.path, got)
		}
	}
}

func TestOnly(t *testing.T) {
	tests := []struct {
		only, ignore, path string
		want               bool // replicated
	}{
		{"passwd shadow", "", "passwd", true},
		{"passwd shadow", "", "shadow", true},
		{"passwd shadow", "", "group", false},
		{"passwd shadow", "", "pam.d/passwd", false},
		{"passwd shadow", "", "pam.d/", false},
		{"ssh", "", "ssh/sshd_config", true},
		{"ssh", "", "ssh/", true},
		{"a/b/*.conf", "", "a/", true},
		{"a/b/*.conf", "", "a/b/", true},
		{"a/b/*.conf", "", "a/b", false}, // a file where a folder leads on
		{"a/b/*.conf", "", "a/b/x.conf", true},
		{"a/b/*.conf", "", "a/b/x.txt", false},
		{"a/b/*.conf", "", "a/c/", false},
		{"**/x", "", "q/r/", true},
		{"**/x", "", "q/r", false},
		{"**/x", "", "q/r/x", true},
		{"a/", "", "a", false},
		{"a/", "", "a/b", true},
		{"etc", "*.bak", "etc/x.bak", false},
		{"etc", "*.bak", "etc/x", true},
	}
	for _, tt := range tests {
		r, err := Compile(strings.Fields(tt.ignore), strings.Fields(tt.only))
		if err != nil {
			t.Fatal(err)
		}
		p, dir := strings.CutSuffix(tt.path, "/")
		if got := !r.Ignored(signature.Path(p), dir); got != tt.want {
			t.Errorf("only %q ignore %q: %q replicated = %v", tt.only, tt.ignore, tt.path, got)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, s := range []string{
		"", "!", "/", "!/", "a//b", "../x", "a/./b", "[a", "[z-a]", "x\\", "\\x4", "\\xzz", "\\x00", "\\x2f",
		"a\x00b", strings.Repeat("x", MaxPattern+1),
	} {
		if _, err := Compile([]string{s}, nil); err == nil {
			t.Errorf("Compile(%q) took it", s)
		}
	}
	if _, err := Compile(nil, []string{"!x"}); err == nil {
		t.Error("an exception in only was taken")
	}
}

func TestNilIgnoresNothing(t *testing.T) {
	var r *Rules
	if r.Ignored("x", false) || (&Rules{}).Ignored("x", true) {
		t.Error("no rules ignore something")
	}
}

func TestIgnoredAllocatesNothing(t *testing.T) {
	r := common(t)
	if n := testing.AllocsPerRun(100, func() { r.Ignored("var/lib/apt/lists/some_long_file_name.list", false) }); n != 0 {
		t.Errorf("%v allocations for one path", n)
	}
}

func common(t testing.TB) *Rules {
	r, err := Compile(strings.Fields("*.o *.tmp *~ .git/ /var/cache /proc/** *.sw[op] node_modules/ **/target/debug !keep.tmp"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func BenchmarkIgnored(b *testing.B) {
	r := common(b)
	b.ReportAllocs()
	for b.Loop() {
		r.Ignored("var/lib/apt/lists/some_long_file_name.list", false)
	}
}

// plain is what the rules mean, without any haste: path.Match per name, and
// every way in which "**" could be read.
func plain(names, rest []string) bool {
	if len(names) == 0 {
		return len(rest) == 0
	}
	if names[0] == "**" {
		if len(names) == 1 {
			return len(rest) > 0
		}
		for i := range len(rest) + 1 {
			if plain(names[1:], rest[i:]) {
				return true
			}
		}
		return false
	}
	if len(rest) == 0 {
		return false
	}
	ok, err := path.Match(names[0], rest[0])
	return err == nil && ok && plain(names[1:], rest[1:])
}

// FuzzIgnored holds the matcher against plain where both have the same syntax,
// and anything at all against what must hold for every pattern.
func FuzzIgnored(f *testing.F) {
	for _, s := range [][2]string{
		{"a/**/b", "a/x/b"}, {"*.o", "x/y.o"}, {"[a-c]?*", "bxx"}, {"**/a/**/a/b", "a/a/a/b"}, {"!x", "x"}, {"\\x41", "A"}, {"a*b*c*", "aabbcc"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, glob, name string) {
		if len(glob) > 60 || len(name) > 60 { // plain is exponential
			return
		}
		p, err := signature.ParsePath(name)
		if err != nil {
			return
		}
		r, err := Compile([]string{glob}, nil)
		if err != nil {
			return
		}
		for _, dir := range []bool{false, true} {
			got := r.Ignored(p, dir)
			if got && !r.Ignored(p+"/child", false) {
				t.Fatalf("%q ignores %q and not what is beneath it", glob, p)
			}
			if strings.ContainsAny(glob, `\![]`) || !ascii(glob+name) {
				continue
			}
			if want := reference(glob, name, dir); got != want {
				t.Fatalf("%q: Ignored(%q, %v) = %v, want %v", glob, p, dir, got, want)
			}
		}
		if o, err := Compile(nil, []string{glob}); err == nil && !o.Ignored(p, false) {
			for q, ok := p.Parent(); ok; q, ok = q.Parent() {
				if o.Ignored(q, true) {
					t.Fatalf("only %q wants %q and not %q, which leads there", glob, p, q)
				}
			}
		}
	})
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool { return c >= 0x80 }) < 0
}

func reference(glob, name string, dir bool) bool {
	g, dirOnly := strings.CutSuffix(glob, "/")
	anchored := strings.Contains(g, "/")
	names := strings.Split(strings.TrimPrefix(g, "/"), "/")
	if !anchored {
		names = append([]string{"**"}, names...)
	}
	all := strings.Split(name, "/")
	for n := 1; n <= len(all); n++ {
		if dirOnly && n == len(all) && !dir {
			continue
		}
		if plain(names, all[:n]) {
			return true
		}
	}
	return false
}
