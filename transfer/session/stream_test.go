package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// echo sends back what it gets, says so on stderr, and ends with 0.
func echo(in Incoming) {
	s := in.Stream
	if err := s.Accept(context.Background()); err != nil {
		return
	}
	_, err := io.Copy(s, s)
	if err == nil {
		_, err = s.WriteStderr([]byte("echoed"))
	}
	if err == nil {
		err = s.CloseWrite()
	}
	if err == nil {
		err = s.SendExit(0)
	}
	if err != nil {
		s.Abort(err)
		return
	}
	_ = s.Close()
}

func roundTrip(h *host, to *host, data []byte) error {
	s, err := h.OpenStream(context.Background(), to.id.ID(), []byte("echo"))
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if _, err := s.Write(data); err != nil {
			s.Abort(err)
		} else if err := s.CloseWrite(); err != nil {
			s.Abort(err)
		}
	})
	got, err := io.ReadAll(s)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("%d bytes came back of %d", len(got), len(data))
	}
	code, _, err := s.Exit()
	if err != nil || code != 0 || string(s.Stderr()) != "echoed" {
		return fmt.Errorf("exit %d, %q, %w", code, s.Stderr(), err)
	}
	return nil
}

// free returns how many connections wait for a stream.
func free(s *session) int {
	s.streams.mu.Lock()
	defer s.streams.mu.Unlock()
	return len(s.streams.idle)
}

func TestStreamBothDirections(t *testing.T) {
	a, b := pair(t) // alpha dialled: both must be able to open
	a.serve, b.serve = echo, echo
	data := make([]byte, 3<<20+17)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	for _, n := range []int{0, 1, maxData - 1, maxData, maxData + 1, len(data)} {
		for _, p := range [][2]*host{{a, b}, {b, a}} {
			if err := roundTrip(p[0], p[1], data[:n]); err != nil {
				t.Errorf("%s to %s, %d bytes: %v", p[0].name, p[1].name, n, err)
			}
		}
	}
}

func TestStreamReuse(t *testing.T) {
	a, b := pair(t)
	b.serve = echo
	s := a.session(b.id.ID())
	const n = 20
	for i := range n {
		if err := roundTrip(a, b, []byte("again")); err != nil {
			t.Fatal(i, err)
		}
		until(t, "the line free", func() bool { return free(s) == 1 })
	}
	c := a.Counts()
	if c.Streams != n || c.Reused != n-1 {
		t.Errorf("%d streams, %d on a used connection", c.Streams, c.Reused)
	}
	if got := b.Counts().Accepted; got > 3 {
		t.Errorf("%d connections for %d streams", got, n)
	}
}

func TestStreamPoolIsBounded(t *testing.T) {
	a, b := pair(t, func(c *Config) { c.IdleStreams = 2; c.IdleFor = 200 * time.Millisecond })
	b.serve = echo
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			if err := roundTrip(a, b, make([]byte, 100000)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s := a.session(b.id.ID())
	all := func() int { return len(s.streams.pick(func(*line) bool { return true })) }
	if n := free(s); n > 2 {
		t.Errorf("%d free connections are kept", n)
	}
	until(t, "free connections closed after a while", func() bool { return free(s) == 0 && all() == 0 })
	until(t, "the other side as well", func() bool {
		return len(b.session(a.id.ID()).streams.pick(func(*line) bool { return true })) == 0
	})
}

// A free connection that the peer closed meanwhile costs nothing but another dial.
func TestStreamStaleLine(t *testing.T) {
	a, b := pair(t)
	b.serve = echo
	if err := roundTrip(a, b, []byte("x")); err != nil {
		t.Fatal(err)
	}
	sa, sb := a.session(b.id.ID()), b.session(a.id.ID())
	until(t, "the line free", func() bool { return free(sa) == 1 })
	for _, l := range sb.streams.pick(func(*line) bool { return true }) {
		l.fail(io.EOF)
	}
	if err := roundTrip(a, b, []byte("y")); err != nil {
		t.Error(err)
	}
}

func TestStreamReject(t *testing.T) {
	a, b := pair(t)
	b.serve = func(in Incoming) {
		if err := in.Stream.Reject("no lane free for " + string(in.Header)); err != nil {
			t.Error(err)
		}
	}
	for range 3 {
		_, err := a.OpenStream(t.Context(), b.id.ID(), []byte("push"))
		var no *Rejected
		if !errors.As(err, &no) || no.Reason != "no lane free for push" {
			t.Fatalf("rejected with %v", err)
		}
	}
	if n := len(a.session(b.id.ID()).streams.out); n != 0 {
		t.Errorf("%d places are still taken", n)
	}
}

// A program at the other end fails early while we still write.
func TestStreamEarlyExit(t *testing.T) {
	a, b := pair(t)
	b.serve = func(in Incoming) {
		s := in.Stream
		if err := s.Accept(context.Background()); err != nil {
			t.Error(err)
			return
		}
		if _, err := s.WriteStderr([]byte("No space left on device")); err != nil {
			t.Error(err)
		}
		if err := s.CloseWrite(); err != nil {
			t.Error(err)
		}
		if err := s.Fail(11, "staging is full"); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	s, err := a.OpenStream(t.Context(), b.id.ID(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		block := make([]byte, 1<<20)
		for range 8 {
			if _, err := s.Write(block); err != nil {
				t.Error("what is written after the other's end is read away: ", err)
				return
			}
		}
		if err := s.CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	if got, err := io.ReadAll(s); err != nil || len(got) != 0 {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	code, reason, err := s.Exit()
	if code != 11 || reason != "staging is full" || err != nil {
		t.Errorf("exit %d %q, %v", code, reason, err)
	}
	if !strings.Contains(string(s.Stderr()), "No space") {
		t.Errorf("stderr %q", s.Stderr())
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	until(t, "the line free", func() bool {
		return free(a.session(b.id.ID())) == 1
	})
}

// What is cut off never looks like an end.
func TestStreamCutOff(t *testing.T) {
	ways := map[string]func(*host, *host, *Stream){
		"abort":           func(_, _ *host, s *Stream) { s.Abort(errors.New("changed my mind")) },
		"close too early": func(_, _ *host, s *Stream) { _ = s.Close() },
		"connection":      func(_, _ *host, s *Stream) { hangUp(s.l.c) },
		"session":         func(a, b *host, _ *Stream) { hangUp(a.session(b.id.ID()).c) },
		"node":            func(a, _ *host, _ *Stream) { a.cancel() },
		"drop":            func(a, b *host, _ *Stream) { b.Drop(a.id.ID(), errors.New("rogue")) },
	}
	for name, cut := range ways {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			got := make(chan error, 1)
			b.serve = func(in Incoming) {
				if err := in.Stream.Accept(context.Background()); err != nil {
					got <- err
					return
				}
				_, err := io.Copy(io.Discard, in.Stream)
				in.Stream.Abort(err)
				got <- err
			}
			s, err := a.OpenStream(t.Context(), b.id.ID(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write(make([]byte, 100000)); err != nil {
				t.Fatal(err)
			}
			cut(a, b, s)
			select {
			case err := <-got:
				if err == nil {
					t.Error("half a stream was read as a whole one")
				}
			case <-time.After(patience):
				t.Error("nobody noticed")
			}
			s.Abort(nil)
			until(t, "all places given back", func() bool { return len(s.l.of.out) == 0 })
		})
	}
}

func TestStreamContext(t *testing.T) {
	a, b := pair(t)
	b.serve = func(in Incoming) {
		if err := in.Stream.Accept(context.Background()); err != nil {
			return
		}
		_, err := io.Copy(io.Discard, in.Stream)
		in.Stream.Abort(err)
	}
	why := errors.New("the batch took too long")
	ctx, cancel := context.WithCancelCause(t.Context())
	s, err := a.OpenStream(ctx, b.id.ID(), nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel(why)
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, why) {
		t.Errorf("read returned %v", err)
	}
	until(t, "writing to fail", func() bool { _, err := s.Write([]byte("x")); return errors.Is(err, why) || errors.Is(err, ErrClosed) })
	if _, err := a.OpenStream(ctx, b.id.ID(), nil); !errors.Is(err, why) {
		t.Errorf("opened with an ended context: %v", err)
	}
}

// More streams than may be open wait for one to end.
func TestStreamLimit(t *testing.T) {
	a, b := pair(t, func(c *Config) { c.MaxStreams = 2 })
	hold := make(chan struct{})
	b.serve = func(in Incoming) {
		if in.Stream.Accept(context.Background()) == nil {
			<-hold
			in.Stream.Abort(nil)
		}
	}
	defer close(hold)
	var open []*Stream
	for range 2 {
		s, err := a.OpenStream(t.Context(), b.id.ID(), nil)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.OpenStream(ctx, b.id.ID(), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the third stream: %v", err)
	}
	open[0].Abort(nil)
	s, err := a.OpenStream(t.Context(), b.id.ID(), nil)
	if err != nil {
		t.Errorf("after one has ended: %v", err)
	} else {
		s.Abort(nil)
	}
	open[1].Abort(nil)
}

func TestManyStreams(t *testing.T) {
	a, b := pair(t)
	a.serve, b.serve = echo, echo
	var wg sync.WaitGroup
	for i := range 48 {
		from, to := a, b
		if i%2 == 0 {
			from, to = b, a
		}
		wg.Go(func() {
			data := bytes.Repeat([]byte{byte(i)}, rand.IntN(300000))
			for range 3 {
				if err := roundTrip(from, to, data); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestStreamNotAccepted(t *testing.T) {
	a, b := pair(t)
	in := make(chan Incoming, 1)
	b.serve = func(i Incoming) { in <- i }
	done := make(chan error, 1)
	a.wg.Go(func() {
		_, err := a.OpenStream(context.Background(), b.id.ID(), nil)
		done <- err
	})
	s := (<-in).Stream
	if _, err := s.Write([]byte("x")); !errors.Is(err, errState) {
		t.Errorf("wrote to a stream nobody accepted: %v", err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, errState) {
		t.Errorf("read from a stream nobody accepted: %v", err)
	}
	_ = s.Close() // neither accepted nor rejected
	if err := <-done; err == nil {
		t.Error("the opener has a stream")
	}
}

func BenchmarkThroughput(b *testing.B) {
	x, y := pair(b)
	y.serve = func(in Incoming) {
		if in.Stream.Accept(context.Background()) != nil {
			return
		}
		if _, err := io.Copy(io.Discard, in.Stream); err == nil {
			_ = in.Stream.CloseWrite()
			_ = in.Stream.SendExit(0)
		}
		_ = in.Stream.Close()
	}
	s, err := x.OpenStream(context.Background(), y.id.ID(), nil)
	if err != nil {
		b.Fatal(err)
	}
	block := make([]byte, 1<<20)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		if _, err := s.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.CloseWrite(); err != nil {
		b.Fatal(err)
	}
	if _, _, err := s.Exit(); err != nil {
		b.Fatal(err)
	}
	_ = s.Close()
}

func BenchmarkOpenReused(b *testing.B) {
	x, y := pair(b)
	y.serve = echo
	for b.Loop() {
		if err := roundTrip(x, y, []byte("x")); err != nil {
			b.Fatal(err)
		}
	}
}
