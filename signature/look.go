package signature

import (
	"context"
	"fmt"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// TypeOf reads the type bits of a mode.
func TypeOf(mode uint32) Type {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return File
	case unix.S_IFDIR:
		return Folder
	case unix.S_IFLNK:
		return Symlink
	case unix.S_IFIFO:
		return Fifo
	case unix.S_IFSOCK:
		return Socket
	case unix.S_IFCHR:
		return CharDevice
	case unix.S_IFBLK:
		return BlockDevice
	}
	return Unknown
}

// Mark returns the stat mark of what an open descriptor holds. The moment of the
// look is before the facts are read, so that Settled never promises too much.
func Mark(f *os.File) (StatMark, error) {
	m, _, err := stat(f)
	return m, err
}

func stat(f *os.File) (StatMark, unix.Stat_t, error) {
	looked := time.Now().UnixNano()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return StatMark{}, st, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return StatMark{
		CTime: nanoseconds(int64(st.Ctim.Sec), int64(st.Ctim.Nsec)), MTime: nanoseconds(int64(st.Mtim.Sec), int64(st.Mtim.Nsec)),
		Ino: st.Ino, Dev: st.Dev, Size: st.Size, Mode: st.Mode, Links: uint32(st.Nlink), Looked: looked,
	}, st, nil
}

// nanoseconds ends at the bounds of int64 rather than running over: a file may
// carry any second that its file system can store.
func nanoseconds(sec, nsec int64) int64 {
	switch {
	case sec >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64
	case sec <= math.MinInt64/int64(time.Second):
		return math.MinInt64
	}
	return sec*int64(time.Second) + nsec
}

// Look reads what stands at p. If mark was settled and still holds for what was
// shown, nothing more is read. Nothing at p, or no folder on the way to it, is an
// Absent signature; whatever could not be read is Unknown, with the error.
func (r *Root) Look(ctx context.Context, p Path, shown Signature, mark StatMark) Look {
	return r.look(ctx, p, func(fresh StatMark) (Hash, bool) {
		return Hash{}, shown.Type > Absent && mark.Settled() && fresh.Same(mark)
	})
}

// LookKnowing looks at a path whose content the caller has just hashed: while the
// stat mark taken then still holds, h is taken for its content.
func (r *Root) LookKnowing(ctx context.Context, p Path, mark StatMark, h Hash) Look {
	return r.look(ctx, p, func(fresh StatMark) (Hash, bool) {
		if !fresh.Same(mark) {
			return Hash{}, false
		}
		return h, false
	})
}

// look calls know with the fresh stat mark; it answers with a content hash that
// still holds, if any, and whether all of the path is unchanged.
func (r *Root) look(ctx context.Context, p Path, know func(StatMark) (Hash, bool)) Look {
	fail := func(err error) Look {
		return Look{Path: p, Err: fmt.Errorf("look at %s: %w", p.Quote(), err)}
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	fd, err := r.pin(p)
	if IsAbsent(err) {
		return Look{Path: p, Sig: Signature{Type: Absent}}
	}
	if err != nil {
		return fail(err)
	}
	pin := os.NewFile(uintptr(fd), p.Quote())
	defer pin.Close()
	fresh, _, err := stat(pin)
	if err != nil {
		return fail(err)
	}
	known, unchanged := know(fresh)
	if unchanged {
		return Look{Path: p, Mark: fresh, Unchanged: true}
	}
	sig, mark, err := r.read(ctx, pin, known)
	if err != nil {
		return fail(err)
	}
	if !mark.Same(fresh) || !r.stands(p, mark) {
		return fail(ErrMoving)
	}
	return Look{Path: p, Sig: sig, Mark: mark}
}

// stands tells whether p still names the inode of m.
func (r *Root) stands(p Path, m StatMark) bool {
	fd, err := r.pin(p)
	if err != nil {
		return false
	}
	pin := os.NewFile(uintptr(fd), "")
	defer pin.Close()
	now, _, err := stat(pin)
	return err == nil && now.Ino == m.Ino && now.Dev == m.Dev
}

// Read reads the facts of what an O_PATH descriptor holds, wherever it is, and
// the stat mark that they belong to. It returns ErrMoving if both do not agree.
func (r *Root) Read(ctx context.Context, pin *os.File) (Signature, StatMark, error) {
	return r.read(ctx, pin, Hash{})
}

func (r *Root) read(ctx context.Context, pin *os.File, known Hash) (Signature, StatMark, error) {
	before, st, err := stat(pin)
	if err != nil {
		return Signature{}, before, err
	}
	s := Signature{Type: TypeOf(st.Mode)}
	s.UID, s.GID, s.MTime = st.Uid, st.Gid, before.MTime
	if s.Type != Symlink {
		s.Mode = st.Mode & 0o7777
	}
	if s.Xattrs, err = r.Xattrs(pin); err != nil {
		return Signature{}, before, err
	}
	switch s.Type {
	case Unknown:
		return Signature{}, before, fmt.Errorf("mode %o names no type", st.Mode)
	case File:
		s.Size, s.Hash = st.Size, known
		if known.Algorithm == NoHash {
			s.Hash, err = hashFile(ctx, pin, st.Size)
		}
	case Symlink:
		s.Target, err = readlink(pin)
	case CharDevice, BlockDevice:
		s.Rdev = uint64(st.Rdev)
	}
	if err != nil {
		return Signature{}, before, err
	}
	after, _, err := stat(pin)
	if err != nil {
		return Signature{}, before, err
	}
	if !after.Same(before) {
		return Signature{}, before, ErrMoving
	}
	return s, before, nil
}

func hashFile(ctx context.Context, pin *os.File, size int64) (Hash, error) {
	if size == 0 {
		return EmptyHash, nil
	}
	f, err := Reopen(pin, unix.O_RDONLY|unix.O_NOATIME)
	if os.IsPermission(err) { // only the owner may leave the access time alone
		f, err = Reopen(pin, unix.O_RDONLY)
	}
	if err != nil {
		return Hash{}, err
	}
	defer f.Close()
	h, n, err := HashContent(ctx, f)
	if err == nil && n != size {
		err = ErrMoving
	}
	return h, err
}

func readlink(pin *os.File) (string, error) {
	buf := make([]byte, MaxPath+1)
	n, err := unix.Readlinkat(int(pin.Fd()), "", buf)
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: pin.Name(), Err: err}
	}
	if n == 0 || n > MaxPath {
		return "", fmt.Errorf("link target of %d bytes", n)
	}
	return string(buf[:n]), nil
}
