package rsync

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// snapshot says of every path that is no folder all that rsync has to carry over.
// Blocks tells whether holes are holes.
func snapshot(t *testing.T, root string) map[string]string {
	t.Helper()
	all, groups := map[string]string{}, map[uint64][]string{}
	inos := map[string]uint64{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		s := fmt.Sprintf("%o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(b)
			s += fmt.Sprintf(" %d %s sparse=%v", st.Size, hex.EncodeToString(sum[:4]), st.Blocks*512 < st.Size/2)
		case unix.S_IFLNK:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			s += " -> " + to
		}
		xs, err := xattrs(p)
		if err != nil {
			return err
		}
		all[rel] = s + xs
		groups[st.Ino] = append(groups[st.Ino], rel)
		inos[rel] = st.Ino
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for rel, ino := range inos {
		g := groups[ino]
		sort.Strings(g)
		all[rel] += fmt.Sprintf(" %q", g)
	}
	return all
}

func xattrs(p string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	sort.Strings(names)
	var s strings.Builder
	for _, name := range names {
		if name == "" {
			continue
		}
		v := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(p, name, v)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&s, " %s=%x", name, v[:n])
	}
	return s.String(), nil
}

func diff(t *testing.T, want, got map[string]string) {
	t.Helper()
	for p, w := range want {
		if g, ok := got[p]; !ok {
			t.Errorf("%q is missing", p)
		} else if g != w {
			t.Errorf("%q:\n got %s\nwant %s", p, g, w)
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			t.Errorf("%q should not be there", p)
		}
	}
}
