package signature

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

var (
	// ErrMount is returned where a mount stands on or above a path beneath the
	// root. What lies behind it is not the tree's.
	ErrMount = errors.New("a mount stands here")
	// ErrMoving is returned by a look at a path that changed meanwhile.
	ErrMoving = errors.New("changes while it is looked at")
	// ErrKind is returned for an open of anything but a regular file or a folder.
	ErrKind = errors.New("neither a file nor a folder")
)

// LookConfig says what a look takes for replicated facts.
type LookConfig struct {
	SELinux bool // security.selinux is replicated
}

// A Root is the opened root of a tree: everything beneath it is reached through
// it, by openat2, through no symlink and across no mount.
//
// It is a short-lived handle. An open descriptor makes umount of the tree's file
// system fail with EBUSY, so a Root is opened for a batch of work, which costs one
// open, and closed after it; between batches nothing of the tree is kept open.
// All methods may be called from several goroutines at once, but Close.
type Root struct {
	dir string
	f   *os.File
	cfg LookConfig
}

// OpenRoot opens dir, an absolute path as the operator wrote it: symlinks on the
// way to the root are the operator's and are followed.
func OpenRoot(dir string, cfg LookConfig) (*Root, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("open tree: %s is not an absolute path", Quote(dir))
	}
	fd, err := retry(func() (int, error) {
		return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("open tree: %w", &os.PathError{Op: "open", Path: Quote(dir), Err: err})
	}
	return &Root{dir: dir, f: os.NewFile(uintptr(fd), dir), cfg: cfg}, nil
}

// Close closes the root. Files opened through it stay open.
func (r *Root) Close() error { return r.f.Close() }

// Dir returns the root's path as it was opened.
func (r *Root) Dir() string { return r.dir }

// Config returns what the root was opened with.
func (r *Root) Config() LookConfig { return r.cfg }

// Handle returns the root's folder. It is the Root's to close.
func (r *Root) Handle() *os.File { return r.f }

// OpenBeneath opens the file or folder at p. Anything else is refused with
// ErrKind before it is opened: opening a device may already do something, and
// opening a fifo wakes its other end. With O_PATH in flags anything is opened,
// a symlink as itself. It never waits for a lease that somebody holds.
func (r *Root) OpenBeneath(p Path, flags int) (*os.File, error) {
	pin, err := r.pin(p)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: p.Quote(), Err: err}
	}
	f := os.NewFile(uintptr(pin), p.Quote())
	if flags&unix.O_PATH != 0 {
		return f, nil
	}
	defer f.Close()
	return Reopen(f, flags)
}

// OpenParent opens the folder that holds p, for use with the *at calls only, and
// returns p's last name.
func (r *Root) OpenParent(p Path) (*os.File, string, error) {
	dir, ok := p.Parent()
	if !ok {
		dir = "."
	}
	fd, err := r.openat2(string(dir), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, "", &os.PathError{Op: "open folder of", Path: p.Quote(), Err: err}
	}
	return os.NewFile(uintptr(fd), dir.Quote()), p.Base(), nil
}

// pin opens p as itself, without touching what it is.
func (r *Root) pin(p Path) (int, error) { return r.openat2(string(p), unix.O_PATH) }

func (r *Root) openat2(p string, flags uint64) (int, error) {
	return Openat2(r.f, p, flags)
}

// Openat2 opens p beneath dir as a Root does: through no symlink, across no
// mount. A mount is ErrMount.
func Openat2(dir *os.File, p string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd, err := retry(func() (int, error) { return unix.Openat2(int(dir.Fd()), p, &how) })
	if err == unix.EXDEV { // nothing else beneath the root gives it: no ".." and no link is followed
		err = ErrMount
	}
	return fd, err
}

// Reopen opens for reading or writing the file or folder that an O_PATH
// descriptor holds: that very inode, whatever has become of its name.
func Reopen(pin *os.File, flags int) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(pin.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: pin.Name(), Err: err}
	}
	if t := TypeOf(st.Mode); t != File && t != Folder {
		return nil, &os.PathError{Op: "open", Path: pin.Name(), Err: fmt.Errorf("%w but a %s", ErrKind, t)}
	}
	fd, err := retry(func() (int, error) {
		return unix.Open(ProcPath(pin), flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: pin.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), pin.Name()), nil
}

// ProcPath names the inode that a descriptor holds, for calls that take no
// descriptor. It leads to a symlink itself, not to its target.
func ProcPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// IsAbsent tells whether an open beneath the root says that nothing stands at
// the path: it is missing, or something on the way to it is missing or no folder.
func IsAbsent(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}

func retry[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR {
			return v, err
		}
	}
}
