package signature

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

var (
	// ErrRootChanged is returned when the tree's path no longer leads to the root
	// it was: unmounted, mounted over, swapped, or emptied with its marker.
	ErrRootChanged = errors.New("another root stands at the tree's path")
	// ErrPrivate is returned when the tree's private folder is not ours alone.
	ErrPrivate = errors.New("not a private folder of ours")
)

const (
	markerName = "tree"
	maxMarker  = 4096
)

// A RootIdentity tells one root from another that stands at the same path.
type RootIdentity struct {
	Dev, Ino uint64
	Mount    uint64 // never used again while the machine is up, where the kernel has such IDs
	Marked   bool   // the marker file exists
	Marker   string // what it says: the tree's ID
}

// Identity returns the identity of the opened root.
func (r *Root) Identity() (RootIdentity, error) {
	var st unix.Statx_t
	// A kernel without unique mount IDs ignores the bit and gives the short ones.
	mask := unix.STATX_INO | unix.STATX_MNT_ID | unix.STATX_MNT_ID_UNIQUE
	if err := unix.Statx(int(r.f.Fd()), "", unix.AT_EMPTY_PATH, mask, &st); err != nil {
		return RootIdentity{}, fmt.Errorf("identify tree %s: %w", Quote(r.dir), err)
	}
	id := RootIdentity{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino, Mount: st.Mnt_id}
	fd, err := r.openat2(Private+"/"+markerName, unix.O_PATH)
	if IsAbsent(err) {
		return id, nil
	}
	if err != nil {
		return RootIdentity{}, fmt.Errorf("identify tree %s: %w", Quote(r.dir), err)
	}
	pin := os.NewFile(uintptr(fd), Private+"/"+markerName)
	defer pin.Close()
	f, err := Reopen(pin, unix.O_RDONLY)
	if err != nil {
		return RootIdentity{}, fmt.Errorf("identify tree %s: %w", Quote(r.dir), err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMarker))
	if err != nil {
		return RootIdentity{}, fmt.Errorf("identify tree %s: %w", Quote(r.dir), err)
	}
	id.Marked, id.Marker = true, string(b)
	return id, nil
}

// StillThere opens the tree's path again, by name, and returns ErrRootChanged
// unless it leads to the root with that identity. The handle that r holds says
// nothing about that: it outlives an unmount.
func (r *Root) StillThere(want RootIdentity) error {
	again, err := OpenRoot(r.dir, r.cfg)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRootChanged, err)
	}
	defer again.Close()
	id, err := again.Identity()
	if err != nil {
		return err
	}
	if id != want {
		return fmt.Errorf("%w: %s is %s, was %s", ErrRootChanged, Quote(r.dir), id, want)
	}
	return nil
}

func (id RootIdentity) String() string {
	marker := "no marker"
	if id.Marked {
		marker = "marker " + Quote(id.Marker)
	}
	return fmt.Sprintf("device %x inode %d mount %d with %s", id.Dev, id.Ino, id.Mount, marker)
}

// WriteMarker makes the root known as the tree with that ID, durably.
func (r *Root) WriteMarker(id string) error {
	if id == "" || len(id) > maxMarker {
		return fmt.Errorf("mark tree: ID of %d bytes", len(id))
	}
	dir, err := r.OpenPrivate()
	if err != nil {
		return fmt.Errorf("mark tree: %w", err)
	}
	defer dir.Close()
	const fresh = markerName + ".new"
	if err := unix.Unlinkat(int(dir.Fd()), fresh, 0); err != nil && err != unix.ENOENT {
		return fmt.Errorf("mark tree: %w", err)
	}
	fd, err := unix.Openat(int(dir.Fd()), fresh, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("mark tree: %w", err)
	}
	f := os.NewFile(uintptr(fd), fresh)
	_, err = f.WriteString(id)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = unix.Renameat(int(dir.Fd()), fresh, int(dir.Fd()), markerName)
	}
	if err == nil {
		err = errors.Join(dir.Sync(), r.f.Sync())
	}
	if err != nil {
		return fmt.Errorf("mark tree: %w", err)
	}
	return nil
}

// OpenPrivate opens the tree's private folder, and makes it where there is none.
// It must be a folder on the root's own mount that belongs to us and is open to
// nobody else: a local user who could put something there could have it applied.
func (r *Root) OpenPrivate() (*os.File, error) {
	err := unix.Mkdirat(int(r.f.Fd()), Private, 0o700)
	made := err == nil
	if err != nil && err != unix.EEXIST {
		return nil, fmt.Errorf("make %s: %w", Private, err)
	}
	fd, err := r.openat2(Private, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return nil, fmt.Errorf("%w: %s is no folder", ErrPrivate, Private)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", Private, err)
	}
	f := os.NewFile(uintptr(fd), Private)
	if made { // the root may have handed down its group bit or an ACL
		if err := r.strip(f); err != nil {
			f.Close()
			return nil, fmt.Errorf("make %s: %w", Private, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, fmt.Errorf("open %s: %w", Private, err)
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o7777 != 0o700 {
		f.Close()
		return nil, fmt.Errorf("%w: %s has owner %d and mode %o, want %d and 700", ErrPrivate, Private, st.Uid, st.Mode&0o7777, os.Geteuid())
	}
	return f, nil
}

func (r *Root) strip(f *os.File) error {
	if err := r.SetXattrs(f, ""); err != nil {
		return err
	}
	return unix.Fchmod(int(f.Fd()), 0o700)
}
