package disk

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// touched is a folder in which this run changes something. Its time is a
// replicated fact, and moves by our hand.
type touched struct {
	ino     uint64
	before  int64 // its mtime when we came
	last    int64 // and when we last went
	foreign bool  // somebody else has moved it meanwhile: it stays as it is
}

// touch is called before a folder is changed; the function that it returns, after.
func (r *run) touch(p signature.Path, dir *os.File) (func(), error) {
	m, err := signature.Mark(dir)
	if err != nil {
		return nil, err
	}
	d := r.touched[p]
	switch {
	case d == nil || d.ino != m.Ino:
		d = &touched{ino: m.Ino, before: m.MTime, last: m.MTime} // a move within the folder touches it twice
		r.touched[p] = d
	case d.last != m.MTime:
		d.foreign = true
	}
	return func() {
		m, err := signature.Mark(dir)
		if err != nil {
			d.foreign = true
			return
		}
		d.last = m.MTime
	}, nil
}

// setFolderTimes gives the folders among the targets their time, and all others
// that were touched the time they had, and makes them durable.
func (r *run) setFolderTimes() {
	for p, it := range r.folders {
		if it.out.Err == nil {
			it.out.Err = r.setFolderTime(p, func(signature.StatMark) (int64, bool) { return it.Target.MTime, true })
		}
	}
	for p, d := range r.touched {
		if it := r.folders[p]; it != nil && it.out.Err == nil {
			continue
		}
		err := r.setFolderTime(p, func(m signature.StatMark) (int64, bool) {
			return d.before, m.Ino == d.ino && m.MTime == d.last && !d.foreign
		})
		if err != nil { // its own look will show what it has now
			r.errs = append(r.errs, err)
		}
	}
}

// setFolderTime gives a folder the time that choose names, if it names one.
func (r *run) setFolderTime(p signature.Path, choose func(signature.StatMark) (int64, bool)) error {
	pin, err := r.pinFolder(p)
	if signature.IsAbsent(err) || errors.Is(err, signature.ErrKind) {
		return nil // removed or replaced in this run or by somebody else
	}
	if err != nil {
		return err
	}
	defer pin.Close()
	m, err := signature.Mark(pin)
	if err != nil {
		return err
	}
	if mtime, ok := choose(m); ok && mtime != m.MTime {
		if err := setTime(pin, mtime); err != nil {
			return err
		}
	}
	if r.whole {
		return nil
	}
	return syncPin(pin)
}

// pinFolder opens the folder at p, the root for the empty path.
func (r *run) pinFolder(p signature.Path) (*os.File, error) {
	if p == "" {
		p = "."
	}
	fd, err := signature.Openat2(r.t.root.Handle(), string(p), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: p.Quote(), Err: err}
	}
	return os.NewFile(uintptr(fd), p.Quote()), nil
}

// errIgnored says that nothing but ignored names fill a folder.
var errIgnored = errors.New("ignored names fill the folder")

// fill returns nil for an empty folder, errIgnored or errNotEmpty.
func (r *run) fill(pin *os.File, p signature.Path) error {
	names, err := list(pin)
	if err != nil || len(names) == 0 {
		return err
	}
	for _, n := range names {
		if r.t.cfg.Ignored == nil || !r.t.cfg.Ignored(p+"/"+signature.Path(n)) {
			return errNotEmpty
		}
	}
	return errIgnored
}

// checkEmpty accepts ignored names: what holds them is kept whole.
func (r *run) checkEmpty(pin *os.File, p signature.Path) error {
	if err := r.fill(pin, p); err != nil && !errors.Is(err, errIgnored) {
		return err
	}
	return nil
}

// removeFolder removes an empty folder, whatever its facts: what this run removed
// from it has moved them, and a folder has no other content. One that only ignored names fill goes
// whole into the conflict store.
func (r *run) removeFolder(ctx context.Context, it *item) error {
	parent, base, done, err := r.parent(it.Path)
	if errors.Is(err, errNoParent) {
		return nil
	}
	if err != nil {
		return err
	}
	defer done()
	failpoint("rmdir", it.Path)
	err = unix.Unlinkat(int(parent.Fd()), base, unix.AT_REMOVEDIR)
	switch err {
	case nil, unix.ENOENT:
		return nil
	case unix.ENOTDIR:
		return unexpected("no folder")
	case unix.ENOTEMPTY, unix.EEXIST:
	default:
		return rmdirError(base, err)
	}
	pin, err := pinAt(parent, base)
	if signature.IsAbsent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer pin.Close()
	if err := r.fill(pin, it.Path); !errors.Is(err, errIgnored) {
		if errors.Is(err, unix.ENOTDIR) {
			return unexpected("no folder")
		}
		if err == nil { // emptied since
			err = errNotEmpty
		}
		return err
	}
	if err := rename(parent, base, r.dir, it.name, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	it.holds = holdsTheirs
	failpoint("folder removed", it.Path)
	moved, err := pinAt(r.dir, it.name)
	if err != nil {
		return err
	}
	defer moved.Close()
	if err := r.fill(moved, it.Path); err != nil && !errors.Is(err, errIgnored) {
		return errors.Join(err, r.restore(ctx, it, parent, base))
	}
	it.verified = true
	return nil
}

func rmdirError(name string, err error) error {
	return &os.PathError{Op: "rmdir", Path: signature.Quote(name), Err: err}
}
