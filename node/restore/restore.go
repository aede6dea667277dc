package restore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// ErrInTheWay is returned where something stands that must not be replaced.
var ErrInTheWay = errors.New("something stands there already")

// maxDepth bounds how deep a kept folder may go: two descriptors are open for
// each level.
const maxDepth = 200

// A Target is where an object goes.
type Target struct {
	Root    string // a folder; the way to it is trusted, what is in it is not
	Path    string // beneath Root; its parent must exist
	Staging string // a folder on the same file system; empty: the parent itself
	Replace bool   // whether what stands there, if no full folder, is replaced
}

// Object copies the object at from, and all beneath it, to t.
func Object(from string, t Target) (err error) {
	dir, base := path.Split(t.Path)
	if base == "" || base == "." || base == ".." {
		return fmt.Errorf("restore: %q names nothing", t.Path)
	}
	root, err := open(unix.AT_FDCWD, t.Root, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	parent, err := beneath(root, dir)
	if err != nil {
		return fmt.Errorf("restore into %q: %w", dir, err)
	}
	defer func() { err = errors.Join(err, parent.Close()) }()
	aside := parent
	if t.Staging != "" {
		if aside, err = open(unix.AT_FDCWD, t.Staging, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW); err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		defer func() { err = errors.Join(err, aside.Close()) }()
	}
	srcDir, err := open(unix.AT_FDCWD, path.Dir(from), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer func() { err = errors.Join(err, srcDir.Close()) }()

	tmp := ".clsync-restore-" + rand.Text()
	// Whatever happens, nothing of ours stays under a name of ours.
	defer func() { err = errors.Join(err, removeAll(aside, tmp)) }()
	if err := clone(srcDir, path.Base(from), aside, tmp, maxDepth); err != nil {
		return fmt.Errorf("restore %q: %w", from, err)
	}
	if err := place(aside, tmp, parent, base, t.Replace); err != nil {
		return fmt.Errorf("restore to %q: %w", t.Path, err)
	}
	return parent.Sync()
}

// place gives the copy its name. With replace, what stood there ends under the
// copy's old name and is removed: a folder only if it is empty.
func place(aside *os.File, tmp string, parent *os.File, base string, replace bool) error {
	from, to := int(aside.Fd()), int(parent.Fd())
	err := unix.Renameat2(from, tmp, to, base, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if !replace {
		return ErrInTheWay
	}
	if err := unix.Renameat2(from, tmp, to, base, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	err = unix.Unlinkat(from, tmp, 0)
	if errors.Is(err, unix.EISDIR) {
		err = unix.Unlinkat(from, tmp, unix.AT_REMOVEDIR)
	}
	if err == nil {
		return nil
	}
	// A full folder: it gets its name back, and our copy goes.
	if back := unix.Renameat2(from, tmp, to, base, unix.RENAME_EXCHANGE); back != nil {
		return errors.Join(err, back)
	}
	if errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("%w: a folder that is not empty", ErrInTheWay)
	}
	return err
}

// open opens one name; the descriptor is closed on exec.
func open(dir int, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// beneath opens a folder beneath root, through no symlink.
func beneath(root *os.File, dir string) (*os.File, error) {
	if dir == "" {
		dir = "."
	}
	fd, err := unix.Openat2(int(root.Fd()), dir, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// removeAll removes a copy, wherever it came to a stop. A missing one is none.
func removeAll(dir *os.File, name string) error {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	if !errors.Is(err, unix.EISDIR) {
		return ignore(err, unix.ENOENT)
	}
	sub, err := open(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	names, err := sub.Readdirnames(-1)
	for _, n := range names {
		err = errors.Join(err, removeAll(sub, n))
	}
	if err = errors.Join(err, sub.Close()); err != nil {
		return err
	}
	return unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
}

func ignore(err error, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}
