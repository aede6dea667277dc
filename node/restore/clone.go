package restore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// clone makes to/new the same as from/old. What it makes is nobody else's until
// it is complete: mode 0, or 0700 for a folder.
func clone(from *os.File, old string, to *os.File, new string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(from.Fd()), old, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: old, Err: err}
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return cloneFile(from, old, to, new)
	case unix.S_IFDIR:
		if depth == 0 {
			return fmt.Errorf("%q: folders within folders, too deep", old)
		}
		return cloneFolder(from, old, to, new, depth)
	case unix.S_IFLNK:
		var target string
		if target, err = readlink(from, old); err == nil {
			err = unix.Symlinkat(target, int(to.Fd()), new)
		}
	default: // fifo, socket, device
		err = unix.Mknodat(int(to.Fd()), new, st.Mode&unix.S_IFMT, int(st.Rdev))
	}
	if err != nil {
		return &os.PathError{Op: "create", Path: new, Err: err}
	}
	// Both are reached through /proc, for these cannot be opened for real. Our
	// names lead to our folders, which nobody but us can change.
	src, err := open(int(from.Fd()), old, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	dst, err := open(int(to.Fd()), new, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return errors.Join(err, src.Close())
	}
	err = facts(object{src, self(from) + "/" + old, true}, object{dst, self(to) + "/" + new, true})
	return errors.Join(err, src.Close(), dst.Close())
}

func cloneFile(from *os.File, old string, to *os.File, new string) error {
	src, err := open(int(from.Fd()), old, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	dst, err := open(int(to.Fd()), new, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW)
	if err != nil {
		return errors.Join(err, src.Close())
	}
	err = contents(src, dst)
	if err == nil {
		err = facts(object{f: src, path: self(src)}, object{f: dst, path: self(dst)})
	}
	if err == nil {
		err = dst.Sync()
	}
	return errors.Join(err, src.Close(), dst.Close())
}

// contents copies bytes and leaves holes holes.
func contents(src, dst *os.File) error {
	if err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err == nil {
		return nil
	}
	st, err := src.Stat()
	if err != nil {
		return err
	}
	for pos := int64(0); ; {
		data, err := unix.Seek(int(src.Fd()), pos, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return dst.Truncate(st.Size())
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(int(src.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(dst, data), io.NewSectionReader(src, data, hole-data)); err != nil {
			return err
		}
		pos = hole
	}
}

func cloneFolder(from *os.File, old string, to *os.File, new string, depth int) error {
	if err := unix.Mkdirat(int(to.Fd()), new, 0o700); err != nil {
		return &os.PathError{Op: "mkdir", Path: new, Err: err}
	}
	src, err := open(int(from.Fd()), old, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	dst, err := open(int(to.Fd()), new, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return errors.Join(err, src.Close())
	}
	names, err := src.Readdirnames(-1)
	for _, n := range names {
		if err == nil {
			err = clone(src, n, dst, n, depth-1)
		}
	}
	if err == nil { // last: its children moved its time
		err = facts(object{f: src, path: self(src)}, object{f: dst, path: self(dst)})
	}
	if err == nil {
		err = dst.Sync()
	}
	return errors.Join(err, src.Close(), dst.Close())
}

func self(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// An object is reached by a descriptor, or by a path where calls take no
// descriptor. named: the path ends in its name, not in a magic link of /proc.
type object struct {
	f     *os.File
	path  string
	named bool
}

// facts gives dst the owner, attributes, mode and times of src, in this order:
// each takes something of what comes later with it.
func facts(src, dst object) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(src.f.Fd()), "", &st, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if err := unix.Fchownat(int(dst.f.Fd()), "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	if err := xattrs(src, dst); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(unix.AT_FDCWD, self(dst.f), st.Mode&0o7777, 0); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	flags := 0
	if dst.named {
		flags = unix.AT_SYMLINK_NOFOLLOW
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, dst.path, []unix.Timespec{st.Atim, st.Mtim}, flags); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// xattrs copies every attribute, ACLs among them. One that cannot be set is an
// error: a copy that lacks something is none.
func xattrs(src, dst object) error {
	list, get, set := unix.Listxattr, unix.Getxattr, unix.Setxattr
	if src.named {
		list, get, set = unix.Llistxattr, unix.Lgetxattr, unix.Lsetxattr
	}
	names := make([]byte, 64<<10) // as much as Linux gives
	n, err := list(src.path, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list attributes: %w", err)
	}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if name == "" || name == "security.selinux" { // labels are the policy's
			continue
		}
		n, err := get(src.path, name, value)
		if err == nil {
			err = set(dst.path, name, value[:n], 0)
		}
		if err != nil {
			return fmt.Errorf("copy attribute %q: %w", name, err)
		}
	}
	return nil
}

func readlink(dir *os.File, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	return string(buf[:n]), err
}
