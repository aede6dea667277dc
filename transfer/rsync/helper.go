package rsync

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// helperEnv names the descriptor on which the helper finds the daemon.
const helperEnv = "CLSYNC_RSH_FD"

// maxArgv bounds what the helper hands over. What rsync composes is 250 bytes.
const maxArgv = 16 << 10

// HelperMain is rsync's -e program: it hands its standard input and output, and
// the arguments that rsync composed, to the daemon that started rsync, and leaves.
// The daemon keeps the descriptors, so rsync does not notice, and at its end finds
// the child it would otherwise poll for every 20 ms already gone.
//
// The socket is inherited through rsync: it has no name that anyone could find.
func HelperMain(args []string) int {
	if err := handOver(args); err != nil {
		fmt.Fprintf(os.Stderr, "clsync rsh: %v\n", err)
		return 255
	}
	return 0
}

func handOver(args []string) error {
	fd, err := strconv.Atoi(os.Getenv(helperEnv))
	if err != nil {
		return errors.New("not started by clsync")
	}
	msg := strings.Join(args, "\x00")
	if len(msg) > maxArgv {
		return fmt.Errorf("arguments of %d bytes", len(msg))
	}
	if err := unix.Sendmsg(fd, []byte(msg), unix.UnixRights(0, 1), nil, 0); err != nil {
		return fmt.Errorf("hand over to the daemon: %w", err)
	}
	return nil
}

// A handover is what the helper brought.
type handover struct {
	argv     []string
	from, to *os.File // what rsync writes, what it reads
}

func (h handover) Close() {
	if h.from != nil {
		h.from.Close()
	}
	if h.to != nil {
		h.to.Close()
	}
}

// rshPair makes the socket that the helper inherits. One message is one packet.
func rshPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open socket pair: %w", err)
	}
	f := os.NewFile(uintptr(fds[0]), "rsh")
	theirs = os.NewFile(uintptr(fds[1]), "rsh")
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("open socket pair: %w", err)
	}
	ours, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		theirs.Close()
		return nil, nil, fmt.Errorf("open socket pair: it is a %T", c)
	}
	return ours, theirs, nil
}

// takeOver waits for the helper. io.EOF means that rsync ended without calling it.
func takeOver(c *net.UnixConn) (h handover, err error) {
	buf := make([]byte, maxArgv+1)
	oob := make([]byte, unix.CmsgSpace(4*4))
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return h, err
	}
	var fds []int
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	for _, m := range msgs {
		if got, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, got...)
		}
	}
	if n == 0 && len(fds) == 0 {
		return h, io.EOF
	}
	if err != nil || len(fds) != 2 || n > maxArgv {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return h, fmt.Errorf("helper sent %d bytes and %d descriptors", n, len(fds))
	}
	for _, fd := range fds {
		// Nobody but us has these ends: the helper is about to leave.
		if e := unix.SetNonblock(fd, true); e != nil {
			err = fmt.Errorf("take over descriptor: %w", e)
		}
	}
	h.from = os.NewFile(uintptr(fds[0]), "from rsync")
	h.to = os.NewFile(uintptr(fds[1]), "to rsync")
	if err != nil {
		h.Close()
		return handover{}, err
	}
	for _, a := range bytes.Split(buf[:n], []byte{0}) {
		h.argv = append(h.argv, string(a))
	}
	return h, nil
}
