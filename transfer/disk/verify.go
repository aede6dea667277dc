package disk

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/clsync/clsync/signature"
)

func unexpected(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnexpected, fmt.Sprintf(format, args...))
}

// verify returns ErrUnexpected unless the inode is what expect says. A settled
// mark proves it; without one everything is read. The mark returned is of the
// moment at which it was so.
func (r *run) verify(ctx context.Context, pin *os.File, expect signature.Signature, mark signature.StatMark) (signature.StatMark, error) {
	now, err := signature.Mark(pin)
	if err != nil {
		return now, err
	}
	if t := signature.TypeOf(now.Mode); t != expect.Type {
		return now, unexpected("a %s", t)
	}
	if now.Same(mark) && mark.Settled() {
		return now, nil
	}
	if k, ok := r.known[inode{now.Dev, now.Ino}]; ok && k.mark.Same(now) && k.sig == expect.Bare() {
		return now, nil
	}
	if expect.Type == signature.File && now.Size != expect.Size {
		return now, unexpected("a file of %d bytes", now.Size)
	}
	sig, now, err := r.t.root.Read(ctx, pin)
	if errors.Is(err, signature.ErrMoving) {
		return now, unexpected("%v", err)
	}
	if err != nil {
		return now, err
	}
	if sig.Type == signature.Folder { // what happens in it, by our hand too, moves its time
		sig.MTime = expect.MTime
	}
	if sig != expect.Bare() {
		return now, unexpected("other facts or content")
	}
	return now, nil
}

// hold takes the lease that a file needs; other kinds need none.
func hold(pin *os.File, t signature.Type) (*lease, error) {
	if t != signature.File {
		return nil, nil
	}
	return takeLease(pin)
}

// leaseError makes a lease on what is no file any more what it is.
func leaseError(err error) error {
	if errors.Is(err, signature.ErrKind) {
		return unexpected("%v", err)
	}
	return err
}

// alike tells whether both marks are of one inode that was not written to between
// them. A rename moves ctime.
func alike(a, b signature.StatMark) bool {
	a.CTime = b.CTime
	return a.Same(b)
}

// inspect verifies what was displaced and takes note of it.
func (r *run) inspect(ctx context.Context, it *item, pin *os.File, before signature.StatMark) error {
	now, err := signature.Mark(pin)
	if err != nil {
		return err
	}
	same := alike(now, before)
	if it.Expect.Type == signature.Folder {
		same = now.Ino == before.Ino && now.Mode == before.Mode
	}
	if !same {
		// Somebody may have saved the very same once more.
		if now, err = r.verify(ctx, pin, it.Expect, signature.StatMark{}); err != nil {
			return err
		}
	}
	if it.Expect.Type == signature.Folder {
		if err := r.checkEmpty(pin, it.Path); err != nil {
			return err
		}
	} else {
		r.known[inode{now.Dev, now.Ino}] = facts{now, it.Expect.Bare()}
	}
	it.displaced, it.verified = now, true
	return nil
}

func markAt(dir *os.File, name string) (signature.StatMark, error) {
	pin, err := pinAt(dir, name)
	if err != nil {
		return signature.StatMark{}, err
	}
	defer pin.Close()
	return signature.Mark(pin)
}
