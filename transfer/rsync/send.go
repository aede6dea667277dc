package rsync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// A SendSpec is one batch to send.
type SendSpec struct {
	Binary string   // rsync, as Probe accepted it
	Helper []string // how to call HelperMain: {"/usr/bin/clsync", "rsh"}
	// Dir is the folder that Names are relative to, and that no link among them
	// leads out of. If it is renamed meanwhile, the rest counts as vanished.
	Dir   *os.File
	Lane  Lane
	Batch string // the receiver's name for it: letters, digits, - and _
	Names []signature.Path
	// CompareDest is, in lane LargeCompare, the way from the receiver's staging
	// folder to the folder that Names are relative to: ../.. and so on. Both ends
	// compose it by the same rule, and the receiver compares.
	CompareDest string
	Timeout     time.Duration // without a byte; DefaultTimeout if 0
	Logger      *slog.Logger
}

// MaxList bounds the names of one batch, in bytes.
const MaxList = 64 << 20

func (s SendSpec) check() error {
	if s.Binary == "" || len(s.Helper) == 0 || s.Dir == nil || len(s.Names) == 0 {
		return fmt.Errorf("%w: no program, helper, folder or names", ErrSpec)
	}
	if err := checkLane(s.Lane, s.Batch, s.CompareDest); err != nil {
		return fmt.Errorf("%w: %w", ErrSpec, err)
	}
	return nil
}

const (
	linger  = time.Second      // how long a broken run is left alone to say why
	leaving = 10 * time.Second // how long one that is through may take to exit
)

// Send sends one batch over conn and closes it. What moved while it was sent is
// not its business: the caller seals.
func Send(ctx context.Context, spec SendSpec, conn Conn) (Result, error) {
	defer conn.Close()
	began := time.Now()
	if err := spec.check(); err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ours, p, err := startSender(spec)
	if err != nil {
		return Result{}, err
	}
	defer ours.Close()

	s := sender{conn: conn, rsh: ours, p: p, dog: newWatchdog(spec.Timeout)}
	stop := guard(ctx, cancel, s.dog, func() {
		p.kill()
		ours.Close()
		conn.Close()
	})
	err = s.run()
	p.end()
	stop()
	if err != nil && ctx.Err() != nil {
		err = cause(ctx)
	}
	res := s.res
	res.Took = time.Since(began)
	logger(spec.Logger).Debug("sent", "batch", spec.Batch, "lane", spec.Lane.String(), "paths", len(spec.Names),
		"bytes", res.Out, "code", res.Code, "peercode", res.PeerCode, "took", res.Took)
	return res, err
}

// A sender is one run of Send.
type sender struct {
	conn Conn
	rsh  *net.UnixConn
	p    *process
	dog  *watchdog
	res  Result
}

func (s *sender) run() error {
	h, err := takeOver(s.rsh)
	if err != nil {
		return s.noHelper(err)
	}
	defer h.Close()
	if err := s.conn.Start(h.argv); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	s.dog.moved()

	var both sync.WaitGroup
	var out, in pumped
	var peer heard
	left := time.AfterFunc(time.Hour, func() { s.conn.Close() })
	defer left.Stop()
	both.Go(func() {
		if out = s.dog.pump(s.conn, h.from); out.write != nil {
			// The peer takes no more. rsync sees that, but would stay to tell it.
			h.from.Close()
			s.p.killAfter(linger)
		}
		<-s.p.done
		s.res.Code, s.res.Stderr, s.res.Out = s.p.code(), s.p.tail.String(), out.n
		if settled(s.res.Code) && out.write == nil {
			out.write = s.conn.CloseWrite()
		} else {
			// The peer may know why. One that does not leave by itself is left.
			left.Reset(linger)
		}
	})
	both.Go(func() {
		in = s.dog.pump(h.to, s.conn)
		h.to.Close() // rsync sees the end and says what it thinks of it
		if in.write != nil {
			in.read = s.dog.drain(s.conn) // rsync left; the peer's exit code is still to come
		}
		if in.read == nil {
			peer.code, peer.words, peer.err = s.conn.Exit()
		}
		if in.read == nil && peer.err == nil && settled(peer.code) {
			s.p.killAfter(leaving) // it has read the goodbye and is about to leave
		} else {
			s.p.kill() // it might wait for ever to be read
		}
		s.conn.Close() // nobody listens there: do not wait for what is being written
	})
	both.Wait()
	s.res.In = in.n
	return s.verdict(out, in, peer)
}

// heard is what the peer told about its end.
type heard struct {
	code  int
	words string
	err   error
}

// verdict weighs both ends. Where the stream broke, our rsync's exit code is only
// the echo of that; where the peer told its end, a write it did not wait for is none.
func (s *sender) verdict(out, in pumped, peer heard) error {
	own := classify("rsync", s.res.Code, s.res.Stderr)
	if in.read == nil && peer.err == nil {
		s.res.PeerCode, s.res.PeerStderr = peer.code, cutStderr(peer.words)
		err := classify("the peer's rsync", peer.code, s.res.PeerStderr)
		if errors.Is(err, ErrJail) { // theirs, not ours
			err = fmt.Errorf("%w: the peer has no jail%s", ErrBatch, lastLine(s.res.PeerStderr))
		}
		return cmp.Or(err, own)
	}
	switch {
	case errors.Is(own, ErrBug):
		return own
	case in.read != nil:
		return fmt.Errorf("%w: read from peer: %w", ErrBatch, in.read)
	case out.write != nil:
		return fmt.Errorf("%w: write to peer: %w", ErrBatch, out.write)
	case own != nil:
		return own
	}
	return fmt.Errorf("%w: wait for the peer's exit code: %w", ErrBatch, peer.err)
}

// noHelper is for an rsync that did not get as far as to call its helper.
func (s *sender) noHelper(err error) error {
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("wait for rsync's helper: %w", err)
	}
	<-s.p.done
	s.res.Code, s.res.Stderr = s.p.code(), s.p.tail.String()
	if err := classify("rsync", s.res.Code, s.res.Stderr); err != nil {
		return err
	}
	return fmt.Errorf("%w: it ended without calling its helper", ErrBug)
}

// startSender starts rsync in the folder, with the list on its standard input and
// the helper's socket as descriptor 3.
func startSender(spec SendSpec) (ours *net.UnixConn, p *process, err error) {
	list, err := nameList(spec.Names)
	if err != nil {
		return nil, nil, err
	}
	defer list.Close()
	ours, theirs, err := rshPair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()

	dir := fmt.Sprintf("/proc/self/fd/%d", spec.Dir.Fd())
	root, err := os.Readlink(dir)
	if err != nil {
		ours.Close()
		return nil, nil, fmt.Errorf("find folder: %w", err)
	}
	cmd := exec.Command(spec.Binary, sendArgs(spec, root)...)
	cmd.Dir = dir
	cmd.Env = environment(helperEnv + "=3")
	cmd.Stdin = list
	cmd.ExtraFiles = []*os.File{theirs}
	p, err = launch(cmd)
	runtime.KeepAlive(spec.Dir)
	if err != nil {
		ours.Close()
		return nil, nil, err
	}
	return ours, p, nil
}

// nameList is the list in memory, as a file: nobody has to feed it.
func nameList(names []signature.Path) (*os.File, error) {
	var b []byte
	for _, n := range names {
		if _, err := signature.ParsePath(string(n)); err != nil || len(b) > MaxList {
			return nil, fmt.Errorf("%w: name %s, list of %d bytes", ErrSpec, n.Quote(), len(b))
		}
		// rsync takes a line that begins so for a comment, even with -0, and
		// leaves it out without a word.
		if n[0] == '#' || n[0] == ';' {
			b = append(b, "./"...)
		}
		b = append(b, n...)
		b = append(b, 0)
	}
	fd, err := unix.MemfdCreate("names", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make name list: %w", err)
	}
	f := os.NewFile(uintptr(fd), "names")
	if _, err := f.Write(b); err != nil {
		f.Close()
		return nil, fmt.Errorf("write name list: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close()
		return nil, fmt.Errorf("rewind name list: %w", err)
	}
	return f, nil
}
