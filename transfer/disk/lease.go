package disk

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// errBusy is returned where a lease is refused.
var errBusy = errors.New("somebody has it open for writing")

// A lease is a read lease: while it is held nobody has the file open for writing
// or mapped writable, and who wants to is held up until it is given back. The
// kernel tells of that by SIGIO, which the runtime ignores; we ask instead.
type lease struct{ f *os.File }

func takeLease(pin *os.File) (*lease, error) {
	f, err := signature.Reopen(pin, unix.O_RDONLY)
	if errors.Is(err, unix.EAGAIN) { // somebody else's write lease
		return nil, errBusy
	}
	if err != nil {
		return nil, err
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if err != nil {
		f.Close()
		if err == unix.EAGAIN {
			return nil, errBusy
		}
		return nil, fmt.Errorf("take a lease: %w", err)
	}
	return &lease{f}, nil
}

// whole tells whether nobody has asked to write since the lease was taken. The
// kernel then answers with the state it wants: unlocked.
func (l *lease) whole() bool {
	kind, err := unix.FcntlInt(l.f.Fd(), unix.F_GETLEASE, 0)
	return err == nil && kind == unix.F_RDLCK
}

// release gives the lease back; closing the only descriptor does so.
func (l *lease) release() {
	if l != nil {
		l.f.Close()
	}
}

// end releases the lease and tells whether somebody was waiting for it. He goes
// on now, and writes to what the lease was on.
func (l *lease) end() (broken bool) {
	if l == nil {
		return false
	}
	broken = !l.whole()
	l.release()
	return broken
}
