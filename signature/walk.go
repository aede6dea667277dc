package signature

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// An Entry is one path that a walk came by, or a folder that it could not read.
type Entry struct {
	Path Path
	Type Type     // Unknown if Err is set
	Mark StatMark // zero if Err is set
	// Err: the path could not be read (ErrMount where a mount stands there), or it
	// is a folder whose names could not; nothing beneath it will be named.
	Err error
}

// Walk calls fn for from and everything beneath it, or for everything beneath the
// root if from is empty: a folder before what is in it, names in byte order. It
// follows no symlink, crosses no mount and leaves out Private. fn may return
// fs.SkipDir for a folder, which is then not read; any other error ends the walk.
//
// A path that is not named need not be absent: it may have come or moved meanwhile,
// or lie beneath a folder that was named with an error. Only a Look says Absent.
//
// One folder is open at a time, whatever the depth; the names, and nothing
// else, of the folders above are kept in memory.
func (r *Root) Walk(ctx context.Context, from Path, fn func(Entry) error) error {
	w := walk{ctx: ctx, r: r, fn: fn}
	defer w.close()
	var err error
	if from == "" {
		err = w.enter("")
	} else {
		err = w.start(from)
	}
	for err == nil && len(w.levels) > 0 {
		err = w.step()
	}
	if err != nil {
		return fmt.Errorf("walk: %w", err)
	}
	return nil
}

type level struct {
	path  Path
	names []string // still to come
}

type walk struct {
	ctx    context.Context
	r      *Root
	fn     func(Entry) error
	levels []level
	open   *os.File // the folder of the last level, or nil
}

func (w *walk) close() {
	if w.open != nil {
		w.open.Close()
		w.open = nil
	}
}

// start names the folder, or whatever it is, at which a walk begins.
func (w *walk) start(from Path) error {
	dir, name, err := w.r.OpenParent(from)
	if IsAbsent(err) {
		return nil
	}
	if err != nil {
		return w.fn(Entry{Path: from, Err: err})
	}
	defer dir.Close()
	return w.visit(dir, from, name)
}

// step takes the next name of the last level.
func (w *walk) step() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	l := &w.levels[len(w.levels)-1]
	if len(l.names) == 0 {
		w.close()
		w.levels = w.levels[:len(w.levels)-1]
		return nil
	}
	if w.open == nil { // back from a folder below
		f, err := w.folder(l.path)
		if err != nil {
			l.names = nil
			return w.unreadable(l.path, err)
		}
		w.open = f
	}
	name := l.names[0]
	l.names = l.names[1:]
	p := Path(name)
	if l.path != "" {
		p = l.path + "/" + p
	}
	return w.visit(w.open, p, name)
}

// visit names p and enters it if it is a folder.
func (w *walk) visit(dir *os.File, p Path, name string) error {
	if len(p) > MaxPath {
		return w.fn(Entry{Path: p, Err: fmt.Errorf("%w: length %d", ErrPath, len(p))})
	}
	mark, err := w.stat(dir, name)
	if IsAbsent(err) {
		return nil // gone since its folder was read
	}
	if err != nil {
		return w.fn(Entry{Path: p, Err: err})
	}
	t := TypeOf(mark.Mode)
	err = w.fn(Entry{Path: p, Type: t, Mark: mark})
	if t == Folder && err == nil {
		return w.enter(p)
	}
	if t == Folder && errors.Is(err, fs.SkipDir) {
		return nil
	}
	return err
}

func (w *walk) stat(dir *os.File, name string) (StatMark, error) {
	looked := time.Now().UnixNano()
	var st unix.Statx_t
	err := unix.Statx(int(dir.Fd()), name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &st)
	if err != nil {
		return StatMark{}, &os.PathError{Op: "stat", Path: Quote(name), Err: err}
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return StatMark{}, ErrMount
	}
	return StatMark{
		CTime: nanoseconds(st.Ctime.Sec, int64(st.Ctime.Nsec)), MTime: nanoseconds(st.Mtime.Sec, int64(st.Mtime.Nsec)),
		Ino: st.Ino, Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Size: int64(st.Size),
		Mode: uint32(st.Mode), Links: st.Nlink, Looked: looked,
	}, nil
}

// enter reads the names of a folder and makes it the last level.
func (w *walk) enter(p Path) error {
	w.close()
	f, err := w.folder(p)
	if err != nil {
		return w.unreadable(p, err)
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		f.Close()
		return w.unreadable(p, err)
	}
	slices.Sort(names)
	if p == "" {
		names = slices.DeleteFunc(names, func(n string) bool { return n == Private })
	}
	w.open = f
	w.levels = append(w.levels, level{p, names})
	return nil
}

func (w *walk) folder(p Path) (*os.File, error) {
	if p == "" {
		p = "."
	}
	fd, err := w.r.openat2(string(p), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: p.Quote(), Err: err}
	}
	return os.NewFile(uintptr(fd), p.Quote()), nil
}

// unreadable reports a folder whose names are not known. The root is no path;
// that it cannot be read is an error of the walk.
func (w *walk) unreadable(p Path, err error) error {
	if IsAbsent(err) && p != "" {
		return nil
	}
	if p == "" {
		return err
	}
	return w.fn(Entry{Path: p, Err: err})
}
