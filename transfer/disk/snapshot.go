package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// ErrNoRoom is returned where a snapshot would leave too little space.
var ErrNoRoom = errors.New("too little space for a snapshot")

// Snapshot puts a moment of a file that does not come to rest into staging/<id>,
// and returns a look at that moment. Where the file system clones, the clone is the
// moment; elsewhere a file that only grew gives its beginning, and for all others
// the error is signature.ErrMoving. The mark in the look is like that of no later
// one, and never settled. Of a file with several names none is taken: a moment of
// one would be no moment of the others.
func (t *Tree) Snapshot(ctx context.Context, id string, p signature.Path) (signature.Look, error) {
	fail := func(err error) (signature.Look, error) {
		return signature.Look{}, fmt.Errorf("snapshot of %s: %w", p.Quote(), err)
	}
	if err := checkName(id); err != nil {
		return fail(err)
	}
	pin, err := t.root.OpenBeneath(p, unix.O_PATH)
	if err != nil {
		return fail(err)
	}
	defer pin.Close()
	dir, err := makeFolder(t.dirs[staging], id)
	if err != nil {
		return fail(err)
	}
	defer dir.Close()
	l, err := t.snapshot(ctx, pin, dir)
	if err == nil && !t.stillThere(p, l.Mark) {
		err = signature.ErrMoving
	}
	if err != nil {
		return fail(errors.Join(err, t.RemoveBatch(id)))
	}
	l.Path, l.Mark.CTime, l.Mark.Looked = p, 0, 0
	return l, nil
}

// stillThere tells whether p names the inode of m.
func (t *Tree) stillThere(p signature.Path, m signature.StatMark) bool {
	pin, err := t.root.OpenBeneath(p, unix.O_PATH)
	if err != nil {
		return false
	}
	defer pin.Close()
	now, err := signature.Mark(pin)
	return err == nil && now.Ino == m.Ino && now.Dev == m.Dev
}

func (t *Tree) snapshot(ctx context.Context, pin, dir *os.File) (signature.Look, error) {
	l, err := t.facts(pin)
	if err != nil {
		return l, err
	}
	if l.Sig.Type != signature.File || l.Mark.Links != 1 {
		return l, signature.ErrMoving
	}
	if err := t.roomFor(l.Mark.Size); err != nil {
		return l, err
	}
	src, err := signature.Reopen(pin, unix.O_RDONLY|unix.O_NOATIME)
	if os.IsPermission(err) { // only the owner may leave the access time alone
		src, err = signature.Reopen(pin, unix.O_RDONLY)
	}
	if err != nil {
		return l, err
	}
	defer src.Close()
	dst, err := create(dir, content)
	if err != nil {
		return l, err
	}
	defer dst.Close()
	l, err = t.cloneMoment(ctx, pin, src, dst)
	if errors.Is(err, ErrNoReflink) {
		l.Sig.Size = l.Mark.Size
		l.Sig.Hash, err = beginning(ctx, src, dst, l.Mark.Size)
	}
	return l, err
}

// facts reads all but the content of what is pinned.
func (t *Tree) facts(pin *os.File) (l signature.Look, err error) {
	if l.Mark, err = signature.Mark(pin); err != nil {
		return l, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(pin.Fd()), &st); err != nil {
		return l, &os.PathError{Op: "stat", Path: pin.Name(), Err: err}
	}
	l.Sig.Type = signature.TypeOf(l.Mark.Mode)
	l.Sig.UID, l.Sig.GID, l.Sig.Mode, l.Sig.MTime = st.Uid, st.Gid, l.Mark.Mode&0o7777, l.Mark.MTime
	l.Sig.Xattrs, err = t.root.Xattrs(pin)
	return l, err
}

// cloneMoment clones src, which no write can cut in two, and reads the clone. A few
// times it tries to meet facts that held before and after; then the facts are those
// of just before. With ErrNoReflink the look has the facts alone.
func (t *Tree) cloneMoment(ctx context.Context, pin, src, dst *os.File) (l signature.Look, err error) {
	for range 4 {
		if l, err = t.facts(pin); err != nil {
			return l, err
		}
		if err := dst.Truncate(0); err != nil {
			return l, err
		}
		if err := clone(dst, src); err != nil {
			return l, err
		}
		after, err := signature.Mark(pin)
		if err != nil {
			return l, err
		}
		if after.Same(l.Mark) {
			break
		}
	}
	l.Sig.Hash, l.Sig.Size, err = signature.HashContent(ctx, dst)
	return l, err
}

// clone makes dst, which is empty, share all of src.
func clone(dst, src *os.File) error {
	switch err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err {
	case nil:
		return nil
	case unix.EOPNOTSUPP, unix.ENOTTY, unix.EXDEV, unix.EINVAL:
		return ErrNoReflink
	default:
		return fmt.Errorf("clone: %w", err)
	}
}

// roomFor tells whether the file system has room for size bytes more: what is left
// then must be a tenth of it, and room for the file once again. A clone takes no
// room at first; when the live file has been written anew, it has taken all of it.
func (t *Tree) roomFor(size int64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(t.dirs[staging].Fd()), &st); err != nil {
		return fmt.Errorf("stat file system: %w", err)
	}
	free, all := int64(st.Bavail)*st.Bsize, int64(st.Blocks)*st.Bsize
	if free-size < max(all/10, size) {
		return fmt.Errorf("%w: %d bytes are free, the file is of %d", ErrNoRoom, free, size)
	}
	return nil
}

// piece is how much of a beginning is compared at a time.
const piece = 1 << 20

// beginning copies the first size bytes of src, if they do not change: all is read,
// then all is read again and copied. Between the two every byte was what it was in
// both, so that the copy is a state the file had.
//
// WINDOW: a byte that is changed after it was read first, and back before it is
// read again, looks unchanged. Such a file does not only grow.
func beginning(ctx context.Context, src, dst *os.File, size int64) (signature.Hash, error) {
	seed := maphash.MakeSeed()
	var sums []uint64
	err := pieces(ctx, src, size, func(_ int64, b []byte) error {
		sums = append(sums, maphash.Bytes(seed, b))
		return nil
	})
	if err != nil {
		return signature.Hash{}, err
	}
	if err := dst.Truncate(size); err != nil {
		return signature.Hash{}, err
	}
	sum, zeros := sha256.New(), make([]byte, piece)
	err = pieces(ctx, src, size, func(at int64, b []byte) error {
		if maphash.Bytes(seed, b) != sums[at/piece] {
			return signature.ErrMoving
		}
		sum.Write(b)
		if bytes.Equal(b, zeros[:len(b)]) { // perhaps a hole: it is one in the copy
			return nil
		}
		_, err := dst.WriteAt(b, at)
		return err
	})
	h := signature.Hash{Algorithm: signature.SHA256}
	sum.Sum(h.Sum[:0])
	return h, err
}

// pieces reads the first size bytes piece by piece.
func pieces(ctx context.Context, src *os.File, size int64, fn func(at int64, b []byte) error) error {
	buf := make([]byte, min(size, piece))
	for at := int64(0); at < size; at += piece {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(size-at, piece)]
		if _, err := src.ReadAt(b, at); errors.Is(err, io.EOF) {
			return signature.ErrMoving // it has shrunk
		} else if err != nil {
			return err
		}
		if err := fn(at, b); err != nil {
			return err
		}
	}
	return nil
}
