package session

import (
	"bufio"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
)

const connBuffer = 128 << 10

// A conn lies between TLS and TCP. TLS seals 16 KiB at a time; gathering these
// saves three of four system calls on a stream.
type conn struct {
	net.Conn
	r *bufio.Reader

	mu     sync.Mutex // TLS may write by itself while a stream flushes
	w      *bufio.Writer
	gather bool
}

func newConn(raw net.Conn) *conn {
	return &conn{Conn: raw, r: bufio.NewReaderSize(raw, 4<<10)}
}

func (c *conn) Read(p []byte) (int, error) { return c.r.Read(p) }

func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gather {
		return c.Conn.Write(p)
	}
	return c.w.Write(p)
}

// gathering turns the buffers on. It is called between the handshake and the
// first stream, with nobody reading or writing. What was read ahead stays.
func (c *conn) gathering() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.r = bufio.NewReaderSize(c.r, connBuffer)
	c.w = bufio.NewWriterSize(c.Conn, connBuffer)
	c.gather = true
}

func (c *conn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.w.Flush()
}

// hangUp closes without the farewell of TLS, which may wait for a peer that takes
// nothing. Both frames and streams say by themselves when they are complete.
func hangUp(c *tls.Conn) { _ = c.NetConn().Close() }

func remoteIP(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
