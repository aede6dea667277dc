// Package disk applies what peers have sent: it is the only writer of the live tree.
//
// An apply is a compare-and-swap. What is to stand at a path is made ready beside
// the tree, complete with its metadata, and exchanged with what stands there; what
// was displaced is looked at, and if it is not what was expected, a local user has
// made a change that nobody had seen: it is put back, or kept in the conflict
// store, and never dropped. A reader sees the old or the new state of a path.
//
// Every path is opened beneath the root by openat2, through no symlink and across
// no mount. A path that cannot be applied harms no other path.
//
// Beside the tree means <root>/.clsync: staging/ (what is being received, by
// batch), grace/ (what is being applied or was displaced, by run), conflicts/.
package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

const (
	staging   = "staging"
	grace     = "grace"
	conflicts = "conflicts"
)

// ErrName is returned for a batch or case name that is no plain file name.
var ErrName = errors.New("not a plain name")

// Config is what a Tree is opened with.
type Config struct {
	// Ignored tells whether a path is left out of replication. A folder that only
	// such names fill can be removed: it goes whole into the conflict store.
	Ignored func(signature.Path) bool
	Node    string // for the notes of what is kept
}

// A Tree is the private side of a root. Like the Root it is opened for a batch of
// work and closed after it: it keeps four folders open. Methods may be called from
// several goroutines, but two Applies must not share a path.
type Tree struct {
	root    *signature.Root
	cfg     Config
	private *os.File
	dirs    map[string]*os.File
}

// Open opens the private folders of a root and makes them where they are missing.
// The root must stay open for as long as the Tree is.
func Open(root *signature.Root, cfg Config) (*Tree, error) {
	private, err := root.OpenPrivate()
	if err != nil {
		return nil, fmt.Errorf("open tree %s: %w", signature.Quote(root.Dir()), err)
	}
	t := &Tree{root: root, cfg: cfg, private: private, dirs: map[string]*os.File{}}
	for _, name := range []string{staging, grace, conflicts} {
		d, err := makeFolder(private, name)
		if err != nil {
			t.Close()
			return nil, fmt.Errorf("open tree %s: %w", signature.Quote(root.Dir()), err)
		}
		t.dirs[name] = d
	}
	return t, nil
}

// Close closes the private folders.
func (t *Tree) Close() error {
	errs := []error{t.private.Close()}
	for _, d := range t.dirs {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

// Batch makes the staging folder of a batch, or finds it, and returns its absolute
// path, for rsync.
func (t *Tree) Batch(id string) (string, error) {
	if err := checkName(id); err != nil {
		return "", fmt.Errorf("stage batch: %w", err)
	}
	d, err := makeFolder(t.dirs[staging], id)
	if err != nil {
		return "", fmt.Errorf("stage batch: %w", err)
	}
	return filepath.Join(t.root.Dir(), signature.Private, staging, id), d.Close()
}

// RemoveBatch removes a batch with everything in it.
func (t *Tree) RemoveBatch(id string) error {
	if err := checkName(id); err != nil {
		return fmt.Errorf("remove batch: %w", err)
	}
	if err := removeAll(t.dirs[staging], id); err != nil {
		return fmt.Errorf("remove batch %s: %w", id, err)
	}
	return nil
}

// Sweep removes the batches that an earlier life has left and keep does not know.
func (t *Tree) Sweep(keep func(id string) bool) error {
	names, err := list(t.dirs[staging])
	if err != nil {
		return fmt.Errorf("sweep staging: %w", err)
	}
	var errs []error
	for _, name := range names {
		if !keep(name) {
			errs = append(errs, removeAll(t.dirs[staging], name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sweep staging: %w", err)
	}
	return nil
}

// checkName accepts what can be a folder of ours: names come from identifiers, and
// a peer may have chosen them.
func checkName(s string) error {
	ok := s != "" && len(s) <= 128 && s[0] != '.'
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
	}
	if !ok {
		return fmt.Errorf("%w: %s", ErrName, signature.Quote(s))
	}
	return nil
}

// makeFolder opens the folder name in dir, ours and private, or makes it.
func makeFolder(dir *os.File, name string) (*os.File, error) {
	if err := unix.Mkdirat(int(dir.Fd()), name, 0o700); err != nil && err != unix.EEXIST {
		return nil, &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	return openFolder(dir, name)
}

func openFolder(dir *os.File, name string) (*os.File, error) {
	fd, err := signature.Openat2(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: signature.Quote(name), Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// pinAt opens what stands under a name, or a longer path, as itself.
func pinAt(dir *os.File, name string) (*os.File, error) {
	fd, err := signature.Openat2(dir, name, unix.O_PATH)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: signature.Quote(name), Err: err}
	}
	return os.NewFile(uintptr(fd), signature.Quote(name)), nil
}

// list returns the names in a folder. The descriptor's position is its own.
func list(dir *os.File) ([]string, error) {
	f, err := openFolder(dir, ".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// removeAll removes name and everything beneath it, following no link. Nothing
// there is no error.
func removeAll(dir *os.File, name string) error {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR && err != unix.EPERM {
		return &os.PathError{Op: "unlink", Path: signature.Quote(name), Err: err}
	}
	f, ferr := openFolder(dir, name)
	if ferr != nil {
		return errors.Join(&os.PathError{Op: "unlink", Path: signature.Quote(name), Err: err}, ferr)
	}
	names, ferr := f.Readdirnames(-1)
	errs := []error{ferr}
	for _, n := range names {
		errs = append(errs, removeAll(f, n))
	}
	f.Close()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "rmdir", Path: signature.Quote(name), Err: err}
	}
	return nil
}

func rename(from *os.File, name string, to *os.File, as string, flags uint) error {
	if err := unix.Renameat2(int(from.Fd()), name, int(to.Fd()), as, flags); err != nil {
		return &os.LinkError{Op: "rename", Old: signature.Quote(name), New: signature.Quote(as), Err: err}
	}
	return nil
}

func unlink(dir *os.File, name string) error {
	if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "unlink", Path: signature.Quote(name), Err: err}
	}
	return nil
}

func rmdir(dir *os.File, name string) error {
	if err := unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR); err != nil {
		return &os.PathError{Op: "rmdir", Path: signature.Quote(name), Err: err}
	}
	return nil
}
