package compare

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Private is the folder at a tree's top that is not compared.
const Private = ".clsync"

// A Tree is all that stands beneath a root, by path.
type Tree map[string]*Entry

// What a scan reads beside names and facts.
type Depth int

const (
	Facts    Depth = iota // everything but content
	Contents              // and the digest of every file
)

// Scan reads the tree at root. A path that vanishes while it is read is left out:
// on a tree at rest there is none.
func Scan(root string, depth Depth) (Tree, error) {
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open tree %q: %w", root, err)
	}
	s := scanner{tree: Tree{}, depth: depth, buf: make([]byte, 1<<20)}
	if err := s.folder(fd, ""); err != nil {
		return nil, err
	}
	s.link()
	return s.tree, nil
}

type scanner struct {
	tree  Tree
	depth Depth
	buf   []byte
}

// folder reads what is in the folder fd, and closes it. It goes by descriptor,
// since a path in the tree may be as long as the kernel allows by itself.
func (s *scanner) folder(fd int, prefix string) error {
	dir := os.NewFile(uintptr(fd), prefix)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("read folder %q: %w", prefix, err)
	}
	for _, name := range names {
		if prefix == "" && name == Private {
			continue
		}
		path := prefix + name
		if err := s.path(fd, name, path); err != nil && !gone(err) {
			return fmt.Errorf("read %q: %w", path, err)
		}
	}
	return nil
}

func (s *scanner) path(dir int, name, path string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	e := entryOf(path, &st)
	var err error
	if e.Xattrs, err = xattrs(dir, name); err != nil {
		return err
	}
	switch e.Type {
	case unix.S_IFLNK:
		n, err := unix.Readlinkat(dir, name, s.buf)
		if err != nil {
			return err
		}
		e.Target = string(s.buf[:n])
	case unix.S_IFREG:
		if err := s.file(dir, name, e); err != nil {
			return err
		}
	case unix.S_IFDIR:
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := s.folder(fd, path+"/"); err != nil {
			return err
		}
	}
	s.tree[path] = e
	return nil
}

func (s *scanner) file(dir int, name string, e *Entry) error {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOATIME | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, flags, 0)
	if errors.Is(err, unix.EPERM) { // NOATIME is for the owner and for root
		fd, err = unix.Openat(dir, name, flags&^unix.O_NOATIME, 0)
	}
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), e.Path)
	defer f.Close()
	if e.Data, err = dataBytes(fd, e.Size); err != nil {
		return err
	}
	if s.depth == Facts {
		return nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{f}, s.buf); err != nil {
		return err
	}
	h.Sum(e.Sum[:0])
	return nil
}

// dataBytes counts what is not in holes. Space that was reserved but never
// written counts as a hole, as it does for rsync.
func dataBytes(fd int, size int64) (int64, error) {
	var sum, pos int64
	for pos < size {
		start, err := unix.Seek(fd, pos, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // nothing but a hole is left
			return sum, nil
		}
		if errors.Is(err, unix.EINVAL) {
			return size, nil
		}
		if err != nil {
			return 0, err
		}
		end, err := unix.Seek(fd, start, unix.SEEK_HOLE)
		if err != nil {
			return 0, err
		}
		sum += end - start
		pos = end
	}
	return min(sum, size), nil
}

// link finds which names belong to one file.
func (s *scanner) link() {
	leaders := map[fileID]string{}
	for path, e := range s.tree {
		if e.file == (fileID{}) {
			continue
		}
		if l, ok := leaders[e.file]; !ok || path < l {
			leaders[e.file] = path
		}
	}
	for _, e := range s.tree {
		if e.file != (fileID{}) {
			e.Leader = leaders[e.file]
		}
	}
}

// xattrs reads the attributes of name itself, be it a link or a device.
func xattrs(dir int, name string) (map[string]string, error) {
	path := "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name
	names, err := grow(func(b []byte) (int, error) { return unix.Llistxattr(path, b) })
	if errors.Is(err, unix.ENOTSUP) || len(names) == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list attributes: %w", err)
	}
	all := map[string]string{}
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if attr == "security.selinux" {
			continue
		}
		value, err := grow(func(b []byte) (int, error) { return unix.Lgetxattr(path, attr, b) })
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read attribute %q: %w", attr, err)
		}
		all[attr] = string(value)
	}
	return all, nil
}

// grow calls read with a buffer that is large enough.
func grow(read func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := read(nil)
		if err != nil || n == 0 {
			return nil, err
		}
		buf := make([]byte, n+64)
		n, err = read(buf)
		if errors.Is(err, unix.ERANGE) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}

// gone tells whether err says that the path is no longer what it was a moment ago.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO)
}
