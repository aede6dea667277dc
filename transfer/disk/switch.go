package disk

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

const oPath = unix.O_PATH

// parent opens the folder above p and notes that our hand will move its time.
// done ends that and closes the folder.
func (r *run) parent(p signature.Path) (dir *os.File, base string, done func(), err error) {
	dir, base, err = r.t.root.OpenParent(p)
	if signature.IsAbsent(err) {
		return nil, "", nil, fmt.Errorf("%w: %w", errNoParent, err)
	}
	if err != nil {
		return nil, "", nil, err
	}
	up, _ := p.Parent()
	over, err := r.touch(up, dir)
	if err != nil {
		dir.Close()
		return nil, "", nil, err
	}
	return dir, base, func() { over(); dir.Close() }, nil
}

func (r *run) checkVacant(it *item) error {
	pin, err := r.t.root.OpenBeneath(it.Path, oPath)
	if signature.IsAbsent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	pin.Close()
	return unexpected("something where nothing was")
}

func (r *run) create(ctx context.Context, it *item) error {
	parent, base, done, err := r.parent(it.Path)
	if err != nil {
		return err
	}
	defer done()
	if err := r.prepareLate(ctx, it); err != nil {
		return err
	}
	fresh, err := pinAt(r.dir, it.name)
	if err != nil {
		return err
	}
	defer fresh.Close()
	failpoint("create", it.Path)
	err = rename(r.dir, it.name, parent, base, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EEXIST):
		return unexpected("something where nothing was")
	case errors.Is(err, unix.ENOENT): // the folder has been removed since it was opened
		return fmt.Errorf("%w: %w", errNoParent, err)
	case err != nil:
		return err
	}
	it.holds = holdsNothing
	return r.landed(it, fresh)
}

// landed notes what is known of an inode that has just been put in place, and
// that a folder's time is still to be set.
func (r *run) landed(it *item, fresh *os.File) error {
	if it.Target.Type == signature.Folder {
		r.folders[it.Path] = it
	}
	m, err := signature.Mark(fresh)
	if err != nil {
		return err
	}
	if alike(m, it.ready) {
		r.known[inode{m.Dev, m.Ino}] = facts{m, it.Target.Bare()}
	}
	return nil
}

// replace exchanges what was made ready with what stands at the path. Types may
// differ; a folder must be empty.
func (r *run) replace(ctx context.Context, it *item) error {
	parent, base, done, err := r.parent(it.Path)
	if err != nil {
		return err
	}
	defer done()
	old, err := pinAt(parent, base)
	if signature.IsAbsent(err) {
		return unexpected("nothing")
	}
	if err != nil {
		return err
	}
	defer old.Close()
	l, err := hold(old, it.Expect.Type)
	if err != nil {
		return leaseError(err)
	}
	defer func() { it.broken = l.end() }()
	before, err := r.verify(ctx, old, it.Expect, it.Mark)
	if err != nil {
		return err
	}
	if it.Expect.Type == signature.Folder {
		if err := r.checkEmpty(old, it.Path); err != nil {
			return err
		}
	}
	if err := r.prepareLate(ctx, it); err != nil {
		return err
	}
	fresh, err := pinAt(r.dir, it.name)
	if err != nil {
		return err
	}
	defer fresh.Close()
	if it.ready.Ino == before.Ino && it.ready.Dev == before.Dev {
		// Already a link to it: a rename of two links of one inode does nothing.
		it.holds = holdsNothing
		return errors.Join(unlink(r.dir, it.name), r.landed(it, fresh))
	}
	failpoint("exchange", it.Path)
	err = rename(r.dir, it.name, parent, base, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.ENOENT) {
		return unexpected("nothing")
	}
	if err != nil {
		return err
	}
	it.holds = holdsTheirs
	failpoint("exchanged", it.Path)
	if err := r.accept(ctx, it, parent, base, before); err != nil {
		return err
	}
	return r.landed(it, fresh)
}

// accept looks at what an exchange has displaced. If it is not what was there
// before, a local user has put it there meanwhile: it goes back.
func (r *run) accept(ctx context.Context, it *item, parent *os.File, base string, before signature.StatMark) error {
	pin, err := pinAt(r.dir, it.name)
	if err != nil {
		return err
	}
	defer pin.Close()
	err = r.inspect(ctx, it, pin, before)
	if err == nil {
		return nil
	}
	return errors.Join(err, r.putBack(ctx, it, parent, base))
}

// putBack exchanges back what should not have been displaced. It does so only
// while the name still has what we put there; else what was displaced goes into
// the conflict store.
func (r *run) putBack(ctx context.Context, it *item, parent *os.File, base string) error {
	// WINDOW: between the check of the name and the exchange back, somebody may put
	// yet another object there. It is then displaced itself, and found to be so: the
	// second turn puts it back, and the older one is kept.
	for turn := range 2 {
		m, err := markAt(parent, base)
		if err != nil || turn == 0 && m.Ino != it.ready.Ino {
			break
		}
		failpoint("put back", it.Path)
		if err := rename(r.dir, it.name, parent, base, unix.RENAME_EXCHANGE); err != nil {
			break
		}
		if m, err = markAt(r.dir, it.name); err == nil && m.Ino == it.ready.Ino && m.Dev == it.ready.Dev {
			it.holds = holdsOurs
			return nil
		}
	}
	return r.keepTheirs(ctx, it, "a local change came in between")
}

// remove moves what stands at the path into the run's folder.
func (r *run) remove(ctx context.Context, it *item) error {
	if r.took[it.Path] {
		return r.checkVacant(it)
	}
	parent, base, done, err := r.parent(it.Path)
	if errors.Is(err, errNoParent) {
		return nil
	}
	if err != nil {
		return err
	}
	defer done()
	old, err := pinAt(parent, base)
	if signature.IsAbsent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer old.Close()
	l, err := hold(old, it.Expect.Type)
	if err != nil {
		return leaseError(err)
	}
	defer func() { it.broken = l.end() }()
	before, err := r.verify(ctx, old, it.Expect, it.Mark)
	if err != nil {
		return err
	}
	failpoint("remove", it.Path)
	err = rename(parent, base, r.dir, it.name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	it.holds = holdsTheirs
	failpoint("removed", it.Path)
	pin, err := pinAt(r.dir, it.name)
	if err != nil {
		return err
	}
	defer pin.Close()
	if err := r.inspect(ctx, it, pin, before); err != nil {
		return errors.Join(err, r.restore(ctx, it, parent, base))
	}
	r.removed[it.Path] = it
	return nil
}

// restore puts back what should not have been moved away, unless the name has
// been taken meanwhile: then it is kept.
func (r *run) restore(ctx context.Context, it *item, parent *os.File, base string) error {
	if rename(r.dir, it.name, parent, base, unix.RENAME_NOREPLACE) == nil {
		it.holds = holdsNothing
		return nil
	}
	return r.keepTheirs(ctx, it, "a local change came in between")
}
