package session

import (
	"fmt"
	"io"
)

// Read reads the peer's data. io.EOF says that the peer sent all it had.
func (s *Stream) Read(p []byte) (int, error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for s.rest == 0 {
		switch {
		case s.rerr != nil:
			return 0, s.rerr
		case s.eof:
			return 0, io.EOF
		case s.fin:
			return 0, ErrAborted
		}
		s.next()
	}
	n, err := s.l.r.Read(p[:min(len(p), s.rest)])
	s.rest -= n
	if err != nil {
		s.broken(err)
		if n == 0 {
			return 0, s.rerr
		}
	}
	return n, nil
}

// WriteTo copies the peer's data to w, a whole chunk at a time.
func (s *Stream) WriteTo(w io.Writer) (n int64, err error) {
	buf := make([]byte, maxData)
	for {
		k, err := s.Read(buf)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		k, err = w.Write(buf[:k])
		n += int64(k)
		if err != nil {
			return n, err
		}
	}
}

// broken notes why nothing more can be read. s.rmu is held.
func (s *Stream) broken(err error) {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	s.rest, s.rerr = 0, fmt.Errorf("read from stream: %w", s.l.cause(err))
}

// next reads the head of the next chunk, and all of it unless it is data. s.rmu
// is held.
func (s *Stream) next() {
	if !s.hearing {
		s.rerr = fmt.Errorf("read from stream: %w", errState)
		return
	}
	kind, n, err := readHead(s.l.r)
	if err != nil {
		s.broken(err)
		return
	}
	if kind == kindData && !s.eof {
		s.rest = n
		return
	}
	var body []byte
	if kind == kindStderr || kind == kindExit {
		body = make([]byte, n)
		if _, err := io.ReadFull(s.l.r, body); err != nil {
			s.broken(err)
			return
		}
	}
	switch {
	case kind == kindStderr:
		s.stderr = append(s.stderr, body...)
		if over := len(s.stderr) - maxStderr; over > 0 {
			s.stderr = append(s.stderr[:0], s.stderr[over:]...)
		}
	case kind == kindExit && s.exited == nil:
		e := decodeExit(body)
		s.exited = &e
	case kind == kindEOF && !s.eof:
		s.eof = true
	case kind == kindFin:
		s.fin = true
	default:
		s.broken(fmt.Errorf("%w: chunk of kind %d out of order", ErrFrame, kind))
	}
}

// skip reads on and drops data. s.rmu is held.
func (s *Stream) skip() {
	if s.rest > 0 {
		n, err := s.l.r.Discard(s.rest)
		s.rest -= n
		if err != nil {
			s.broken(err)
		}
		return
	}
	s.next()
}

// Exit waits for the peer's exit status and the reason given with it. Data that
// was not read is dropped, so it is called when Read has returned io.EOF or
// nobody wants to read any more.
func (s *Stream) Exit() (code int, reason string, err error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	for s.exited == nil {
		switch {
		case s.rerr != nil:
			return -1, "", s.rerr
		case s.fin:
			return -1, "", ErrNoExit
		}
		s.skip()
	}
	return s.exited.code, s.exited.reason, nil
}

// Stderr returns the end of what the peer wrote with WriteStderr and was read on
// the way to data or the exit status.
func (s *Stream) Stderr() []byte {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	return append([]byte(nil), s.stderr...)
}

// send writes one chunk that fits into the buffer. s.wmu is held.
func (s *Stream) send(kind byte, body []byte) error {
	b := append(s.buffer()[:chunkHead], body...)
	return s.sendBuffer(b, kind)
}

func (s *Stream) buffer() []byte {
	if s.buf == nil {
		s.buf = make([]byte, maxChunk)
	}
	return s.buf
}

// sendBuffer writes a chunk whose body stands in b behind room for the head.
func (s *Stream) sendBuffer(b []byte, kind byte) error {
	if s.werr != nil {
		return s.werr
	}
	putHead(b, kind, len(b)-chunkHead)
	_, err := s.l.c.Write(b)
	if err == nil {
		err = s.l.wire.flush()
	}
	if err != nil {
		s.werr = fmt.Errorf("write to stream: %w", s.l.cause(err))
	}
	return s.werr
}

// writable tells whether chunks may be written. s.wmu is held.
func (s *Stream) writable(data bool) error {
	switch {
	case s.closed || data && s.wEOF:
		return ErrClosed
	case !s.accepted:
		return errState
	}
	return s.werr
}

func (s *Stream) write(kind byte, p []byte) (n int, err error) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if err := s.writable(kind == kindData); err != nil {
		return 0, err
	}
	for len(p) > 0 {
		k := min(len(p), maxData)
		if err := s.send(kind, p[:k]); err != nil {
			return n, err
		}
		n, p = n+k, p[k:]
	}
	return n, nil
}

// Write sends data. It waits while the peer does not take it.
func (s *Stream) Write(p []byte) (int, error) { return s.write(kindData, p) }

// WriteStderr sends text beside the data; after CloseWrite too.
func (s *Stream) WriteStderr(p []byte) (int, error) { return s.write(kindStderr, p) }

// ReadFrom sends all of r, in chunks as it gives them.
func (s *Stream) ReadFrom(r io.Reader) (n int64, err error) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if err := s.writable(true); err != nil {
		return 0, err
	}
	for {
		b := s.buffer()
		k, err := r.Read(b[chunkHead:])
		if k > 0 {
			if err := s.sendBuffer(b[:chunkHead+k], kindData); err != nil {
				return n, err
			}
			n += int64(k)
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// CloseWrite says that all data was sent.
func (s *Stream) CloseWrite() error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.wEOF {
		return nil
	}
	if err := s.writable(true); err != nil {
		return err
	}
	s.wEOF = true
	return s.send(kindEOF, nil)
}

// SendExit sends the exit status of what ran at this end.
func (s *Stream) SendExit(code int) error { return s.Fail(code, "") }

// Fail sends an exit status with a reason for people.
func (s *Stream) Fail(code int, reason string) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if err := s.writable(false); err != nil {
		return err
	}
	return s.send(kindExit, exit{code, reason}.encode())
}
