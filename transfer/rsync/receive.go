package rsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A ReceiveSpec is one batch to receive.
type ReceiveSpec struct {
	Binary string   // rsync, as Probe accepted it
	Helper []string // how to call JailMain: {"/usr/bin/clsync", "jail"}
	Lane   Lane
	// StagingDir is absolute, exists, lies beneath TreeRoot and holds nothing of
	// anybody else's. Beneath the root it is reached through no symbolic link.
	StagingDir string
	// TreeRoot is the root on staging's file system. In lane LargeCompare it can be read.
	TreeRoot    string
	CompareDest string // as in SendSpec
	Jail        JailMode
	Limits      Limits
	Timeout     time.Duration // without a byte; DefaultTimeout if 0
	Logger      *slog.Logger
}

// Limits bound the receiving rsync. Zero is the default.
type Limits struct {
	FileSize    uint64 // bytes of one staged file; default none
	Memory      uint64 // bytes of address space; default DefaultMemory
	Descriptors uint64 // default DefaultDescriptors
}

// Defaults of Limits. --max-alloc is 512 MiB, and two processes share nothing.
const (
	DefaultMemory      = 2 << 30
	DefaultDescriptors = 64
)

func (l Limits) rlimits() map[int]unix.Rlimit {
	both := func(v, def uint64) unix.Rlimit {
		if v == 0 {
			v = def
		}
		return unix.Rlimit{Cur: v, Max: v}
	}
	return map[int]unix.Rlimit{
		unix.RLIMIT_FSIZE:  both(l.FileSize, unix.RLIM_INFINITY),
		unix.RLIMIT_AS:     both(l.Memory, DefaultMemory),
		unix.RLIMIT_NOFILE: both(l.Descriptors, DefaultDescriptors),
		unix.RLIMIT_CORE:   {},
	}
}

// setLimits sets the limits of process pid, 0 being the caller.
func (l Limits) set(pid int) error {
	for which, lim := range l.rlimits() {
		if err := unix.Prlimit(pid, which, &lim, nil); err != nil {
			return fmt.Errorf("set limit %d: %w", which, err)
		}
	}
	return nil
}

func (s ReceiveSpec) check() error {
	switch {
	case s.Binary == "" || !filepath.IsAbs(s.Binary):
		return fmt.Errorf("%w: rsync is %q, which is no absolute path", ErrSpec, s.Binary)
	case !filepath.IsAbs(s.TreeRoot) || s.TreeRoot == "/" || filepath.Clean(s.TreeRoot) != s.TreeRoot:
		return fmt.Errorf("%w: tree root %q", ErrSpec, s.TreeRoot)
	case filepath.Clean(s.StagingDir) != s.StagingDir ||
		!strings.HasPrefix(s.StagingDir, s.TreeRoot+"/"):
		return fmt.Errorf("%w: staging %q is not beneath %q", ErrSpec, s.StagingDir, s.TreeRoot)
	}
	if err := checkLane(s.Lane, "x", s.CompareDest); err != nil {
		return fmt.Errorf("%w: %w", ErrSpec, err)
	}
	return nil
}

// Receive receives one batch into staging and closes conn. It may be called as
// soon as the batch was asked for, so that our rsync starts while the peer's does;
// conn must not give it a byte before CheckPeerArgs said yes.
func Receive(ctx context.Context, spec ReceiveSpec, conn ServerConn) (Result, error) {
	defer conn.Close()
	began := time.Now()
	if err := spec.check(); err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, err := startReceiver(spec)
	if err != nil {
		return Result{}, err
	}
	r.conn, r.dog = conn, newWatchdog(spec.Timeout)
	stop := guard(ctx, cancel, r.dog, func() {
		r.p.kill()
		conn.Close()
	})
	err = r.run()
	stop()
	if err != nil && ctx.Err() != nil {
		err = cause(ctx)
	}
	res := r.res
	res.Took = time.Since(began)
	logger(spec.Logger).Debug("received", "lane", spec.Lane.String(), "bytes", res.In, "code", res.Code,
		"early", res.Early, "jailed", res.Jailed, "took", res.Took)
	return res, err
}

// A receiver is one run of Receive.
type receiver struct {
	conn ServerConn
	p    *process
	to   *os.File // our end of rsync's standard input
	from *os.File // our end of its standard output
	dog  *watchdog
	res  Result
}

func startReceiver(spec ReceiveSpec) (r *receiver, err error) {
	tree, staging, err := spec.open()
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	defer staging.Close()

	var cmd *exec.Cmd
	jailed, err := spec.Jail.wanted()
	if err != nil {
		return nil, err
	}
	if jailed {
		var files []*os.File
		cmd, files, err = jailCommand(spec, tree, staging)
		defer closeAll(files)
		if err != nil && spec.Jail == Auto {
			logger(spec.Logger).Warn("no jail for rsync", "err", err)
			jailed = false
		} else if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrJail, err)
		}
	}
	if !jailed {
		cmd = exec.Command(spec.Binary, ServerArgs(spec)...)
		cmd.Dir = fmt.Sprintf("/proc/self/fd/%d", staging.Fd())
	}
	cmd.Env = environment()

	r = &receiver{}
	r.res.Jailed = jailed
	in, to, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("open pipe: %w", err)
	}
	defer in.Close()
	from, out, err := os.Pipe()
	if err != nil {
		to.Close()
		return nil, fmt.Errorf("open pipe: %w", err)
	}
	defer out.Close()
	cmd.Stdin, cmd.Stdout = in, out
	r.to, r.from = to, from
	if r.p, err = launch(cmd); err == nil && !jailed {
		// It has seen no byte yet, and so has forked nothing.
		if err = spec.Limits.set(r.p.pid); errors.Is(err, unix.ESRCH) {
			err = nil // it left already, and its exit code will say why
		}
		if err != nil {
			r.p.end()
		}
	}
	if err != nil {
		to.Close()
		from.Close()
		return nil, err
	}
	return r, nil
}

func (r *receiver) run() error {
	var in, out pumped
	var early, ended atomic.Bool // ended: by us
	inDone := make(chan struct{})
	go func() {
		defer close(inDone)
		in = r.dog.pump(r.to, r.conn)
		if in.write != nil {
			// Nobody reads any more; how the peer ends still matters.
			in.read = r.dog.drain(r.conn)
		}
		if ended.Load() {
			in.read = nil
		}
		switch {
		case in.read != nil:
			r.p.kill() // a broken stream: nothing of it will be used
		case in.write == nil && writerGone(r.to):
			early.Store(true)
			r.p.kill()
		}
		r.to.Close()
	}()
	outDone := make(chan struct{})
	go func() {
		defer close(outDone)
		if out = r.dog.pump(r.conn, r.from); out.write != nil {
			r.from.Close()
			r.p.killAfter(linger)
		}
	}()
	<-r.p.done
	<-outDone // its other end is closed
	r.from.Close()

	code, words := r.p.code(), r.p.tail.String()
	if early.Load() && r.p.killed() {
		code, r.res.Early = 0, true
		if words != "" { // an attribute it may not set, for instance
			code = 23
		}
	}
	r.res.Code, r.res.Stderr, r.res.Out = code, words, out.n
	ended.Store(true)
	exitErr := r.conn.Exit(code, words)
	r.conn.Close() // ends the other direction, if the peer did not
	<-inDone
	r.res.In = in.n

	own := classify("rsync", code, words)
	switch {
	case errors.Is(own, ErrBug), errors.Is(own, ErrJail):
		return own
	case in.read != nil && r.p.killed():
		return fmt.Errorf("%w: read from peer: %w", ErrBatch, in.read)
	case out.write != nil && own == nil:
		return fmt.Errorf("%w: write to peer: %w", ErrBatch, out.write)
	case own == nil && exitErr != nil:
		return fmt.Errorf("%w: tell the exit code: %w", ErrBatch, exitErr)
	}
	return own
}

// writerGone tells whether the process that writes content has left: it alone
// holds the other end of the pipe. After an orderly end it is just being told to
// by the generator, hence the wait. See the package's comment.
func writerGone(to *os.File) bool {
	raw, err := to.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		for {
			n, err := unix.Poll(fds, 5)
			if err == unix.EINTR {
				continue
			}
			gone = n == 1 && fds[0].Revents&unix.POLLERR != 0
			return
		}
	})
	return err == nil && gone
}

// open opens the tree's root and staging beneath it, through no symbolic link and
// out of no bind mount: whoever owns a part of the tree may plant one.
func (s ReceiveSpec) open() (tree, staging *os.File, err error) {
	if tree, err = openBeneath(unix.AT_FDCWD, s.TreeRoot, 0); err != nil {
		return nil, nil, fmt.Errorf("open tree: %w", err)
	}
	rel := strings.TrimPrefix(s.StagingDir, s.TreeRoot+"/")
	staging, err = openBeneath(int(tree.Fd()), rel, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV)
	if err != nil {
		tree.Close()
		return nil, nil, fmt.Errorf("open staging: %w", err)
	}
	return tree, staging, nil
}

func openBeneath(at int, path string, resolve uint64) (*os.File, error) {
	fd, err := unix.Openat2(at, path, &unix.OpenHow{
		Flags:   unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_RDONLY,
		Resolve: resolve,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
