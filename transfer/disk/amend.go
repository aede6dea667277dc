package disk

import (
	"context"
	"errors"
	"os"

	"github.com/clsync/clsync/signature"
)

// amend sets the facts of what stands at the path and keeps its inode: somebody
// may have it open, and be writing to it.
func (r *run) amend(ctx context.Context, it *item) error {
	pin, err := r.t.root.OpenBeneath(it.Path, oPath)
	if signature.IsAbsent(err) {
		return unexpected("nothing")
	}
	if err != nil {
		return err
	}
	defer pin.Close()
	now, err := signature.Mark(pin)
	if err != nil {
		return err
	}
	if k, ok := r.known[inode{now.Dev, now.Ino}]; ok && k.mark.Same(now) && k.sig == it.Target.Bare() {
		return nil // another name of the same inode was amended before
	}
	// An open log is amended, too; but only under a lease is it known that
	// nothing was written between the look at it and our setting of its time.
	l, err := hold(pin, it.Expect.Type)
	if err != nil && !errors.Is(err, errBusy) {
		return leaseError(err)
	}
	defer l.release()
	before, err := r.verify(ctx, pin, it.Expect, it.Mark)
	if err != nil {
		return err
	}
	failpoint("amend", it.Path)
	if it.out.Unkept, err = setFacts(r.t.root, pin, it.Target.Facts); err != nil {
		return errors.Join(err, r.unamend(pin, it, before))
	}
	switch it.Expect.Type {
	case signature.Folder:
		r.folders[it.Path] = it
	case signature.File:
		if l != nil && l.whole() {
			if now, err = signature.Mark(pin); err != nil {
				return err
			}
			r.known[inode{now.Dev, now.Ino}] = facts{now, it.Target.Bare()}
		} else {
			delete(r.known, inode{now.Dev, now.Ino})
		}
	default:
		r.resync = true
		return nil
	}
	if r.whole {
		return nil
	}
	return syncPin(pin)
}

// unamend gives back the facts of which only some could be set: a look would take
// the mixture for a user's change.
func (r *run) unamend(pin *os.File, it *item, before signature.StatMark) error {
	if now, err := signature.Mark(pin); err != nil || now.Same(before) {
		return err
	}
	_, err := setFacts(r.t.root, pin, it.Expect.Facts)
	return err
}
