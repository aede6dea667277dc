package rsync

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// framed is a Conn and a ServerConn over any net.Conn: one byte of kind, four of
// length, the rest. It is what a session's stream does, in small.
type framed struct {
	c     net.Conn
	r     *bufio.Reader
	mu    sync.Mutex // writing
	left  int        // of a data frame
	code  int
	words string
	ended bool
	exit  bool
}

func frame(c net.Conn) *framed { return &framed{c: c, r: bufio.NewReader(c)} }

func (f *framed) put(kind byte, b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := append([]byte{kind}, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(h[1:], uint32(len(b)))
	_, err := f.c.Write(append(h, b...))
	return err
}

func (f *framed) head() (kind byte, n int, err error) {
	var h [5]byte
	if _, err := io.ReadFull(f.r, h[:]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, 0, err
	}
	return h[0], int(binary.BigEndian.Uint32(h[1:])), nil
}

func (f *framed) body(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(f.r, b)
	return b, err
}

func (f *framed) Start(argv []string) error {
	if err := f.put('S', []byte(strings.Join(argv, "\x00"))); err != nil {
		return err
	}
	_, n, err := f.head()
	if err != nil {
		return err
	}
	b, err := f.body(n)
	if err != nil {
		return err
	}
	if len(b) > 0 {
		return errors.New(string(b))
	}
	return nil
}

// accept reads the peer's arguments and answers.
func (f *framed) accept(check func([]string) error) error {
	_, n, err := f.head()
	if err != nil {
		return err
	}
	b, err := f.body(n)
	if err != nil {
		return err
	}
	if err := check(strings.Split(string(b), "\x00")); err != nil {
		return errors.Join(err, f.put('A', []byte(err.Error())))
	}
	return f.put('A', nil)
}

func (f *framed) Read(b []byte) (int, error) {
	for f.left == 0 && !f.ended {
		kind, n, err := f.head()
		if err != nil {
			return 0, err
		}
		switch kind {
		case 'D':
			f.left = n
		case 'E':
			f.ended = true
		case 'X':
			w, err := f.body(n)
			if err != nil {
				return 0, err
			}
			f.code, f.words, f.ended, f.exit = int(w[0]), string(w[1:]), true, true
		}
	}
	if f.ended {
		return 0, io.EOF
	}
	n, err := f.r.Read(b[:min(len(b), f.left)])
	f.left -= n
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (f *framed) Write(b []byte) (int, error) {
	if err := f.put('D', b); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (f *framed) CloseWrite() error { return f.put('E', nil) }

func (f *framed) Exit() (int, string, error) {
	if !f.exit {
		return 0, "", io.ErrUnexpectedEOF
	}
	return f.code, f.words, nil
}

func (f *framed) Close() error {
	if h, ok := f.c.(interface{ CloseWrite() error }); ok {
		err := h.CloseWrite()
		return errors.Join(err, f.c.SetDeadline(time.Now())) // what is under way still arrives
	}
	return f.c.Close()
}

// server is the receiving end, whose Exit has other arguments.
type server struct{ *framed }

func (s server) Exit(code int, words string) error {
	return s.put('X', append([]byte{byte(code)}, words...))
}

var (
	_ Conn       = (*framed)(nil)
	_ ServerConn = server{}
)

// transports are the streams that batches travel over in these tests.
var transports = map[string]func(testing.TB) (a, b net.Conn){
	"pipe": func(testing.TB) (net.Conn, net.Conn) { return net.Pipe() },
	"socketpair": func(t testing.TB) (net.Conn, net.Conn) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		var cs [2]net.Conn
		for i, fd := range fds {
			f := os.NewFile(uintptr(fd), fmt.Sprint(i))
			if cs[i], err = net.FileConn(f); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		return cs[0], cs[1]
	},
	"tcp": func(t testing.TB) (net.Conn, net.Conn) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		a, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return a, b
	},
}

func connect(t testing.TB, transport string) (*framed, server) {
	a, b := transports[transport](t)
	t.Cleanup(func() { a.Close(); b.Close() })
	return frame(a), server{frame(b)}
}
