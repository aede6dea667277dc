package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxConns bounds how many ask at once; more wait in the kernel's queue.
const maxConns = 32

// listen makes the socket. Until its mode is set only its owner can connect,
// because connecting takes the right to write and no umask in use leaves that.
func listen(socket string, group int) (*listener, error) {
	dir := filepath.Dir(socket)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	if group >= 0 { // operators must get through the folder
		if err := os.Chown(dir, -1, group); err != nil {
			return nil, err
		}
	}
	if err := clear(socket); err != nil {
		return nil, err
	}
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	mode := fs.FileMode(0o600)
	if group >= 0 {
		mode = 0o660
		err = os.Lchown(socket, -1, group)
	}
	if err == nil {
		err = os.Chmod(socket, mode)
	}
	if err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return &listener{UnixListener: u, slots: make(chan struct{}, maxConns), done: make(chan struct{})}, nil
}

// clear removes the socket of a daemon that is no more.
func clear(socket string) error {
	st, err := os.Lstat(socket)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is in the way and is not a socket", socket)
	}
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("another clsync answers on %s", socket), c.Close())
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(socket)
}

// A listener hands out at most maxConns connections at once, each with what the
// kernel says of who is there.
type listener struct {
	*net.UnixListener
	slots chan struct{}
	done  chan struct{}
	once  sync.Once
}

type conn struct {
	*net.UnixConn
	who  cred
	free func()
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	for {
		u, err := l.AcceptUnix()
		if err != nil {
			<-l.slots
			return nil, err
		}
		who, err := credOf(u)
		if err != nil { // nobody we could name gets an answer
			if err := u.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				<-l.slots
				return nil, err
			}
			continue
		}
		return &conn{UnixConn: u, who: who, free: sync.OnceFunc(func() { <-l.slots })}, nil
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.UnixListener.Close()
}

func (c *conn) Close() error {
	c.free()
	return c.UnixConn.Close()
}
