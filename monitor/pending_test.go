package monitor

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clsync/clsync/signature"
)

// Whatever is added, and however little room there is: each added path is taken,
// or lies beneath a deep one; a deep one only beneath or as a deep one.
func TestPendingLosesNothing(t *testing.T) {
	name := rapid.SampledFrom([]string{"a", "b", "c", "a-b", "\xff"})
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 40).Draw(t, "limit")
		q := newPending(limit)
		added := make(map[signature.Path]mark)
		for range rapid.IntRange(1, 200).Draw(t, "n") {
			p := signature.Path(strings.Join(rapid.SliceOfN(name, 0, 6).Draw(t, "path"), "/"))
			m := rapid.SampledFrom([]mark{0, 0, 0, deep, deep | overflow}).Draw(t, "mark")
			q.add(p, m)
			added[p] |= m
			if len(q.marks) > limit {
				t.Fatalf("%d wait, limit %d", len(q.marks), limit)
			}
		}
		hints := q.take()
		if rapid.Bool().Draw(t, "put back") {
			q.putBack(hints)
			if again := q.take(); !slices.Equal(again, hints) {
				t.Fatalf("put back %v, taken %v", hints, again)
			}
		}
		taken := make(map[signature.Path]mark)
		for _, h := range hints {
			taken[h.Path] = 0
			if h.Deep {
				taken[h.Path] = deep
			}
		}
		for p, m := range added {
			got, ok := taken[p]
			if !covered(taken, p) && (!ok || m&deep != 0 && got&deep == 0) {
				t.Errorf("%q (%b) was lost: %v", p, m, hints)
			}
		}
		for p := range taken {
			if covered(taken, p) {
				t.Errorf("%q is hinted beneath a deep hint", p)
			}
		}
		if !slices.IsSortedFunc(hints, func(a, b Hint) int { return strings.Compare(string(a.Path), string(b.Path)) }) {
			t.Errorf("not in order: %v", hints)
		}
		if again := q.take(); len(again) != 0 {
			t.Errorf("taken twice: %v", again)
		}
	})
}

// Few hints in one folder do not send the reader through the whole tree.
func TestPendingCollapsesNoMoreThanNeeded(t *testing.T) {
	q := newPending(20)
	for _, p := range []signature.Path{"etc/passwd", "var/lib/x"} {
		q.add(p, 0)
	}
	for c := range 26 {
		q.add(signature.Path("srv/web/cache/"+string(rune('a'+c))), 0)
	}
	if got := q.take(); slices.Contains(got, Hint{Deep: true}) || !slices.ContainsFunc(got, func(h Hint) bool { return h.Deep && h.Path == "srv/web/cache" }) {
		t.Errorf("collapsed to %v", got)
	}
}

func TestSink(t *testing.T) {
	long := strings.Repeat("n/", 2047) + "n" // MaxPath exactly
	tests := []struct {
		rel   string
		named bool
		want  []Hint
	}{
		{"", false, []Hint{{}}},
		{"a/b", false, []Hint{{Path: "a/b"}}},
		{"a/b", true, []Hint{{Path: "a"}, {Path: "a/b"}}},
		{"a", true, []Hint{{}, {Path: "a"}}},
		{signature.Private, true, nil},
		{signature.Private + "/a/b", false, nil},
		{signature.Private + "2", false, []Hint{{Path: signature.Private + "2"}}},
		{"a/" + signature.Private, false, []Hint{{Path: "a/" + signature.Private}}},
		{"ignored", true, nil},
		{"ignored/a/b", true, nil},
		{"a\xff\n", false, []Hint{{Path: "a\xff\n"}}},
		{long, false, []Hint{{Path: signature.Path(long)}}},
		{long + "/n/m", false, []Hint{{Path: signature.Path(long), Deep: true}}},
		{"a/" + strings.Repeat("n", 256) + "/b", false, []Hint{{Path: "a", Deep: true}}},
	}
	for _, tt := range tests {
		s := newSink(Config{Pending: 10, Ignored: func(p signature.Path) bool { return p == "ignored" }})
		if tt.named {
			s.named(tt.rel, 0)
		} else {
			s.hint(tt.rel, 0)
		}
		if got := s.pending.take(); !slices.Equal(got, tt.want) {
			t.Errorf("hint %.60q (named %t): %v, want %v", tt.rel, tt.named, got, tt.want)
		}
	}
}

func TestBeneath(t *testing.T) {
	tests := []struct {
		dir, path, rel string
		ok             bool
	}{
		{"/a", "/a", "", true},
		{"/a", "/a/b/c", "b/c", true},
		{"/a", "/ab", "", false},
		{"/a", "/", "", false},
		{"/", "/", "", true},
		{"/", "/a/b", "a/b", true},
		{"/", "a", "", false},
	}
	for _, tt := range tests {
		if rel, ok := beneath(tt.dir, tt.path); rel != tt.rel || ok != tt.ok {
			t.Errorf("beneath(%q, %q) = %q, %t", tt.dir, tt.path, rel, ok)
		}
		if tt.ok && tt.rel != "" && absolute(tt.dir, tt.rel) != tt.path {
			t.Errorf("absolute(%q, %q) = %q", tt.dir, tt.rel, absolute(tt.dir, tt.rel))
		}
	}
}
