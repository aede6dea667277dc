package load

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/test/compare"
)

// Wrong returns a line for each path of the writer's that a tree does not show
// as the writer left it: content, type, mode, link target, and nothing else there.
func (w *Writer) Wrong(root string) ([]string, error) {
	tree, err := compare.Scan(root, compare.Contents)
	if err != nil {
		return nil, err
	}
	var wrong []string
	say := func(p, format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf("%q: ", p)+fmt.Sprintf(format, args...))
	}
	want := map[string]bool{}
	for p, s := range w.state {
		want[p] = true
		e, ok := tree[p]
		if !ok {
			say(p, "is missing")
			continue
		}
		switch s.kind {
		case file:
			if e.Type != unix.S_IFREG || e.Sum != SumOf(s.content) || e.Mode != uint32(s.mode) {
				say(p, "is not the file of %d bytes and mode %o that was left there", len(s.content), s.mode)
			}
		case symlink:
			if e.Type != unix.S_IFLNK || e.Target != s.target {
				say(p, "is not the link to %q that was left there", s.target)
			}
		case folder:
			want[p+"/in"] = true
			if in := tree[p+"/in"]; e.Type != unix.S_IFDIR || in == nil || in.Sum != SumOf(s.content) {
				say(p, "is not the folder that was left there")
			}
		}
	}
	for p := range tree {
		if strings.HasPrefix(p, w.Dir+"/") && !want[p] {
			say(p, "was deleted and is there")
		}
	}
	return wrong, nil
}
