package control

import (
	"fmt"
	"net"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A cred is who is at the other end of a unix socket, as the kernel says.
type cred struct {
	uid    uint32
	groups []uint32
}

// credOf asks the kernel. The groups are those the process had when it connected,
// so nothing is looked up by a process ID that may belong to another by now.
func credOf(c *net.UnixConn) (out cred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return out, err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		var u *unix.Ucred
		if u, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); inner != nil {
			return
		}
		out.uid = u.Uid
		if out.groups, inner = peerGroups(fd); inner == nil {
			out.groups = append(out.groups, u.Gid)
		}
	})
	if err == nil {
		err = inner
	}
	if err != nil {
		return cred{}, fmt.Errorf("ask who connects: %w", err)
	}
	return out, nil
}

// peerGroups reads SO_PEERGROUPS, which x/sys knows by number only.
func peerGroups(fd uintptr) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && int(size/4) > len(groups):
			groups = make([]uint32, size/4) // the kernel said how many; 65536 at the most
		default:
			return nil, errno
		}
	}
}

// A door says who may do what.
type door struct {
	own   uint32 // the daemon's user
	group int    // may read; negative: none
}

func (d door) mayChange(c cred) bool { return c.uid == 0 || c.uid == d.own }

func (d door) mayRead(c cred) bool {
	return d.mayChange(c) || d.group >= 0 && slices.Contains(c.groups, uint32(d.group))
}
