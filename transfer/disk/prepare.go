package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// build makes, under a name in a private folder, what target says, complete with
// its facts, and returns it as an O_PATH descriptor. Contents that are moved or
// linked in the live tree are not its business, nor is what this disk cannot keep.
func (t *Tree) build(ctx context.Context, dir *os.File, name string, target signature.Signature, c Content) (pin *os.File, unkept, err error) {
	pin, err = t.makeBare(ctx, dir, name, target, c)
	if err != nil {
		return nil, nil, err
	}
	if unkept, err = setFacts(t.root, pin, target.Facts); err != nil {
		pin.Close()
		return nil, nil, err
	}
	return pin, unkept, nil
}

func (t *Tree) makeBare(ctx context.Context, dir *os.File, name string, target signature.Signature, c Content) (*os.File, error) {
	fd := int(dir.Fd())
	var err error
	switch target.Type {
	case signature.File:
		switch {
		case c.Staged != "":
			err = t.fetchStaged(dir, name, target, c)
		case c.CopyFrom != "":
			err = t.copyLive(ctx, dir, name, target, c.CopyFrom)
		case target.Hash == signature.EmptyHash && target.Size == 0:
			err = makeEmpty(dir, name)
		default:
			err = fmt.Errorf("%w: none given", ErrContent)
		}
	case signature.Folder:
		err = unix.Mkdirat(fd, name, 0o700)
	case signature.Symlink:
		err = unix.Symlinkat(target.Target, fd, name)
	case signature.Fifo:
		err = unix.Mknodat(fd, name, unix.S_IFIFO|0o600, 0)
	case signature.Socket:
		err = unix.Mknodat(fd, name, unix.S_IFSOCK|0o600, 0)
	case signature.CharDevice:
		err = unix.Mknodat(fd, name, unix.S_IFCHR|0o600, int(target.Rdev))
	case signature.BlockDevice:
		err = unix.Mknodat(fd, name, unix.S_IFBLK|0o600, int(target.Rdev))
	default:
		err = fmt.Errorf("no path is %s", target.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", target.Type, err)
	}
	return pinAt(dir, name)
}

func makeEmpty(dir *os.File, name string) error {
	f, err := create(dir, name)
	if err != nil {
		return err
	}
	return f.Close()
}

func create(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// fetchStaged moves a staged file to where it is made ready. Its content was
// verified by the caller; its type and size are looked at again, because that
// costs nothing. One that is gone has to come from a peer again.
func (t *Tree) fetchStaged(dir *os.File, name string, target signature.Signature, c Content) error {
	from, base, err := t.stagedParent(c)
	if signature.IsAbsent(err) {
		return fmt.Errorf("%w: nothing is staged: %w", ErrContent, err)
	}
	if err != nil {
		return err
	}
	defer from.Close()
	pin, err := pinAt(from, base)
	if signature.IsAbsent(err) {
		return fmt.Errorf("%w: nothing is staged: %w", ErrContent, err)
	}
	if err != nil {
		return err
	}
	defer pin.Close()
	m, err := signature.Mark(pin)
	if err != nil {
		return err
	}
	if signature.TypeOf(m.Mode) != signature.File || m.Size != target.Size {
		return fmt.Errorf("%w: %s of %d bytes is staged", ErrContent, signature.TypeOf(m.Mode), m.Size)
	}
	return rename(from, base, dir, name, unix.RENAME_NOREPLACE)
}

// returnStaged puts a staged file back for a later attempt.
func (t *Tree) returnStaged(dir *os.File, name string, c Content) error {
	to, base, err := t.stagedParent(c)
	if err != nil {
		return err
	}
	defer to.Close()
	return rename(dir, name, to, base, unix.RENAME_NOREPLACE)
}

// stagedParent opens the folder of a staged path. The path may be as long as any,
// so it is resolved from the batch's folder.
func (t *Tree) stagedParent(c Content) (*os.File, string, error) {
	if err := checkName(c.Batch); err != nil {
		return nil, "", err
	}
	p, err := signature.ParsePath(c.Staged)
	if err != nil {
		return nil, "", err
	}
	batch, err := openFolder(t.dirs[staging], c.Batch)
	if err != nil {
		return nil, "", err
	}
	parent, ok := p.Parent()
	if !ok {
		return batch, p.Base(), nil
	}
	defer batch.Close()
	dir, err := openFolder(batch, string(parent))
	return dir, p.Base(), err
}

// copyLive clones or copies a live file and verifies what it got: the live file
// may be written to meanwhile.
func (t *Tree) copyLive(ctx context.Context, dir *os.File, name string, target signature.Signature, from signature.Path) error {
	src, err := t.root.OpenBeneath(from, unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSource, err)
	}
	defer src.Close()
	return copyVerified(ctx, src, dir, name, target)
}

func copyVerified(ctx context.Context, src, dir *os.File, name string, target signature.Signature) error {
	st, err := src.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || st.Size() != target.Size {
		return fmt.Errorf("%w: %s is of %d bytes", ErrSource, src.Name(), st.Size())
	}
	dst, err := create(dir, name+part)
	if err != nil {
		return err
	}
	defer dst.Close()
	err = copyContent(ctx, dst, src, target.Size)
	if err == nil {
		err = verifyCopy(ctx, dst, target)
	}
	if err == nil {
		err = rename(dir, name+part, dir, name, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		return errors.Join(err, unlink(dir, name+part))
	}
	return nil
}

// part ends the name of what is being copied: whatever bears it is worth nothing.
const part = ".part"

func verifyCopy(ctx context.Context, f *os.File, target signature.Signature) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	h, n, err := signature.HashContent(ctx, f)
	if err == nil && (h != target.Hash || n != target.Size) {
		err = fmt.Errorf("%w: it has another content", ErrSource)
	}
	return err
}

// copyContent clones where the file system can, else copies what is no hole.
func copyContent(ctx context.Context, dst, src *os.File, size int64) error {
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
		return nil // whether all of it is right, the hash will say
	}
	if err := dst.Truncate(size); err != nil {
		return err
	}
	for pos := int64(0); pos < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		start, err := unix.Seek(int(src.Fd()), pos, unix.SEEK_DATA)
		if err == unix.ENXIO { // nothing but a hole is left
			return nil
		}
		if err != nil {
			return fmt.Errorf("seek data: %w", err)
		}
		end, err := unix.Seek(int(src.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("seek hole: %w", err)
		}
		end = min(end, size, start+64<<20) // look at ctx now and then
		if _, err := io.Copy(io.NewOffsetWriter(dst, start), io.NewSectionReader(src, start, end-start)); err != nil {
			return err
		}
		if end <= start {
			return nil // cut off meanwhile; the hash will tell
		}
		pos = end
	}
	return nil
}
