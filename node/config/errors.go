package config

import (
	"fmt"
	"slices"
	"strings"
)

// An Error is one thing wrong in a file.
type Error struct {
	File string
	Line int // 0 if it is of no line in particular
	Msg  string
}

func (e Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Msg)
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
}

// Errors are all that is wrong in a file, in the order of its lines.
type Errors []Error

func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// nearest returns the known word that s was probably meant to be.
func nearest(s string, known []string) (string, bool) {
	best, at := "", max(1, len(s)/3)+1
	for _, k := range known {
		if d := distance(strings.ToLower(s), k); d < at {
			best, at = k, d
		}
	}
	return best, best != ""
}

// distance is how many bytes must be put in, taken out, changed or swapped with
// their neighbour to make b of a.
func distance(a, b string) int {
	before, last := []int(nil), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// oneOf says which words may stand there.
func oneOf(got string, words ...string) error {
	if slices.Contains(words, got) {
		return nil
	}
	all := `"` + strings.Join(words, `", "`) + `"`
	if near, ok := nearest(got, words); ok {
		return fmt.Errorf("%q is none of %s; did you mean %q?", got, all, near)
	}
	return fmt.Errorf("%q is none of %s", got, all)
}
