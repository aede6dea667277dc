package trust

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxSecret bounds what is read of a key file.
const maxSecret = 64 << 10

// readSecret reads a file that only its owner can read, and whose owner is this
// process's user or root. What is checked is the open file, not its name.
func readSecret(path string) (text []byte, err error) {
	// O_NONBLOCK: opening a FIFO would otherwise wait for a writer.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%w: %s is a symlink; name the file itself", ErrKeyFile, path)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { err = errors.Join(err, f.Close()) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	switch uid := uint32(os.Geteuid()); {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrKeyFile, path)
	case st.Uid != uid && st.Uid != 0:
		return nil, fmt.Errorf("%w: %s belongs to user %d; run: chown %d %s", ErrKeyFile, path, st.Uid, uid, path)
	case st.Mode&0o077 != 0:
		return nil, fmt.Errorf("%w: %s has mode %03o, others could read or write it; run: chmod 600 %s, and change the key if they did",
			ErrKeyFile, path, st.Mode&0o777, path)
	case st.Size > maxSecret:
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrKeyFile, path, st.Size)
	}
	return io.ReadAll(io.LimitReader(f, maxSecret))
}

// writeNew writes a file that did not exist, with mode 600, whole and durable or
// not at all. A hard link is how a name is taken without replacing anything.
func writeNew(path string, text []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("%s exists and is not replaced: %w", path, os.ErrExist)
		}
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
