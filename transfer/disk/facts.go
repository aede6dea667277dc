package disk

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// setFacts gives what an O_PATH descriptor holds the owner, attributes, mode and
// times of want, in this order: a change of owner drops setuid and capabilities,
// an ACL changes the mode, and everything but the access time may move the times.
// What is right already is not touched, so that nothing is dropped without need.
// What the file system cannot keep is told apart: all else is then as it should be.
func setFacts(root *signature.Root, pin *os.File, want signature.Facts) (unkept, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(pin.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat: %w", err)
	}
	owned := st.Uid != want.UID || st.Gid != want.GID
	if owned {
		if err := unix.Fchownat(int(pin.Fd()), "", int(want.UID), int(want.GID), unix.AT_EMPTY_PATH); err != nil {
			return nil, fmt.Errorf("set owner %d:%d: %w", want.UID, want.GID, err)
		}
	}
	before, err := root.Xattrs(pin)
	if err != nil {
		return nil, err
	}
	unkept = root.SetXattrs(pin, want.Xattrs)
	if unkept != nil && !errors.Is(unkept, signature.ErrUnkept) {
		return nil, unkept
	}
	link := signature.TypeOf(st.Mode) == signature.Symlink
	if !link && (owned || before != want.Xattrs || st.Mode&0o7777 != want.Mode) {
		if err := unix.Chmod(signature.ProcPath(pin), want.Mode); err != nil {
			return nil, fmt.Errorf("set mode %o: %w", want.Mode, err)
		}
	}
	return unkept, setTime(pin, want.MTime)
}

func setTime(pin *os.File, mtime int64) error {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(mtime)}
	if err := unix.UtimesNanoAt(int(pin.Fd()), "", ts, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// syncPin makes a file or folder durable; other kinds have no descriptor for it,
// and go with the folder they are in.
func syncPin(pin *os.File) error {
	m, err := signature.Mark(pin)
	if err != nil {
		return err
	}
	if t := signature.TypeOf(m.Mode); t != signature.File && t != signature.Folder {
		return nil
	}
	f, err := signature.Reopen(pin, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

func syncWhole(f *os.File) error {
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync file system: %w", err)
	}
	return nil
}
