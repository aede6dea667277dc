package disk

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// prepareLate makes ready what depends on what this run has done before: links to
// names just put in place, and contents whose own delete is in the run.
func (r *run) prepareLate(ctx context.Context, it *item) error {
	var err error
	switch {
	case it.Content.LinkTo != "":
		err = r.link(ctx, it)
	case it.Content.MoveFrom != "":
		err = r.moveLive(ctx, it)
	default:
		return nil
	}
	if errors.Is(err, ErrUnexpected) || signature.IsAbsent(err) { // of the source, not of the path
		err = fmt.Errorf("%w: %s: %v", ErrSource, it.Content.source().Quote(), err)
	}
	return err
}

func (c Content) source() signature.Path { return c.LinkTo + c.MoveFrom }

// link makes another link to a live name that has the target's signature.
func (r *run) link(ctx context.Context, it *item) error {
	if it.Target.Type == signature.Folder {
		return fmt.Errorf("%w: no folder is linked", ErrSource)
	}
	pin, err := r.t.root.OpenBeneath(it.Content.LinkTo, oPath)
	if err != nil {
		return err
	}
	defer pin.Close()
	mark := signature.StatMark{}
	if it.Content.Sig.Bare() == it.Target.Bare() {
		mark = it.Content.Mark
	}
	if _, err := r.verify(ctx, pin, it.Target, mark); err != nil {
		return err
	}
	// By descriptor: the inode verified is the one linked, whatever its name has now.
	err = unix.Linkat(unix.AT_FDCWD, signature.ProcPath(pin), int(r.dir.Fd()), it.name, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return &os.LinkError{Op: "link", Old: it.Content.LinkTo.Quote(), New: it.name, Err: err}
	}
	it.holds = holdsOurs
	it.ready, err = signature.Mark(pin)
	return err
}

// moveLive takes a live file whose own delete is in this run, or has been.
func (r *run) moveLive(ctx context.Context, it *item) error {
	c := it.Content
	if c.Sig.Hash != it.Target.Hash || c.Sig.Size != it.Target.Size {
		return unexpected("another content")
	}
	if gone := r.removed[c.MoveFrom]; gone != nil && gone.holds == holdsTheirs {
		return r.moveRemoved(ctx, it, gone)
	}
	parent, base, done, err := r.parent(c.MoveFrom)
	if err != nil {
		return err
	}
	defer done()
	pin, err := pinAt(parent, base)
	if err != nil {
		return err
	}
	defer pin.Close()
	l, err := hold(pin, c.Sig.Type)
	if err != nil {
		return leaseError(err)
	}
	defer l.release()
	before, err := r.verify(ctx, pin, c.Sig, c.Mark)
	if err != nil {
		return err
	}
	if before.Links > 1 { // its other names stay what they are
		return r.copyPin(ctx, it, pin)
	}
	failpoint("move", c.MoveFrom)
	if err := rename(parent, base, r.dir, it.name, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	it.holds, it.taken = holdsOurs, true
	now, err := markAt(r.dir, it.name)
	if err != nil {
		return err
	}
	if !alike(now, before) {
		it.holds, it.taken = holdsTheirs, false
		return errors.Join(unexpected("another file"), r.restore(ctx, it, parent, base))
	}
	r.took[c.MoveFrom] = true
	return r.dress(it, pin)
}

// moveRemoved takes what an earlier path of this run has displaced.
func (r *run) moveRemoved(ctx context.Context, it, gone *item) error {
	pin, err := pinAt(r.dir, gone.name)
	if err != nil {
		return err
	}
	defer pin.Close()
	l, err := hold(pin, signature.File)
	if err != nil {
		return err
	}
	defer l.release()
	now, err := r.verify(ctx, pin, gone.Expect, signature.StatMark{})
	if err != nil {
		return err
	}
	if now.Links > 1 || gone.Keep != "" {
		return r.copyPin(ctx, it, pin)
	}
	if err := rename(r.dir, gone.name, r.dir, it.name, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	// If it is then not wanted, it is as deleted as it was before.
	it.holds, gone.holds = holdsOurs, holdsNothing
	return r.dress(it, pin)
}

func (r *run) copyPin(ctx context.Context, it *item, pin *os.File) error {
	src, err := signature.Reopen(pin, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer src.Close()
	it.holds = holdsOurs
	if err := copyVerified(ctx, src, r.dir, it.name, it.Target); err != nil {
		return err
	}
	made, err := pinAt(r.dir, it.name)
	if err != nil {
		return err
	}
	defer made.Close()
	return r.dress(it, made)
}

func (r *run) dress(it *item, pin *os.File) (err error) {
	if it.out.Unkept, err = setFacts(r.t.root, pin, it.Target.Facts); err != nil {
		return err
	}
	return r.markReady(it, pin)
}

// giveBack undoes moveLive.
func (r *run) giveBack(ctx context.Context, it *item) error {
	it.holds = holdsTheirs
	pin, err := pinAt(r.dir, it.name)
	if err != nil {
		return err
	}
	defer pin.Close()
	if _, err := setFacts(r.t.root, pin, it.Content.Sig.Facts); err != nil {
		return errors.Join(err, r.keepTheirs(ctx, it, "could not be given back"))
	}
	parent, base, done, err := r.parent(it.Content.MoveFrom)
	if err != nil {
		return errors.Join(err, r.keepTheirs(ctx, it, "could not be given back"))
	}
	defer done()
	delete(r.took, it.Content.MoveFrom)
	return r.restore(ctx, it, parent, base)
}
