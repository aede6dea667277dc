package rsync

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process is a program with all it forks, as one process group. Its end is the
// end of all of them: every one of them holds the standard error we gave it, and
// done is closed when nobody does.
type process struct {
	cmd  *exec.Cmd
	pid  int // of the leader, and the group's number
	done chan struct{}
	tail tail

	mu     sync.Mutex
	reaped bool // the group's number may belong to others from now on
}

// environment is all that a child gets of ours. rsync needs PATH for nothing but
// its -e program.
func environment(more ...string) []string {
	return append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LC_ALL=C",
	}, more...)
}

// launch starts cmd, whose standard input and output must be files or nil, and
// returns when it runs.
func launch(cmd *exec.Cmd) (*process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("open pipe: %w", err)
	}
	cmd.Stderr = w
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	// If the daemon is killed, so is this. The signal comes when the thread that
	// started the child ends; reap keeps that thread.
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL

	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	var both sync.WaitGroup
	both.Go(func() { p.reap(started) })
	err = <-started
	w.Close()
	if err != nil {
		r.Close()
		both.Wait()
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	both.Go(func() {
		_, err := io.Copy(&p.tail, r)
		if err != nil {
			fmt.Fprintf(&p.tail, "read standard error: %v\n", err)
		}
		r.Close()
	})
	go func() {
		both.Wait()
		p.settle()
		close(p.done)
	}()
	return p, nil
}

func (p *process) reap(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	if err == nil {
		p.pid = p.cmd.Process.Pid
	}
	started <- err
	if err != nil {
		return
	}
	// Wait without reaping: as long as the leader is a zombie, its group's number
	// is nobody else's and what it left behind can be killed by it.
	for {
		err := unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	p.kill()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reaped = true
	if err := p.cmd.Wait(); err != nil && p.cmd.ProcessState == nil {
		fmt.Fprintf(&p.tail, "wait: %v\n", err)
	}
}

// settle gives what was killed with the leader a moment to leave its working folder
// too, which it does right after its descriptors: it would keep a file system busy.
// A zombie holds nothing, so nobody waits for init to reap it.
func (p *process) settle() {
	for range 5 {
		if unix.Kill(-p.pid, 0) != nil {
			return
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// kill ends all of them. It does not wait.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		// ESRCH cannot be: the leader is not reaped.
		_ = unix.Kill(-p.pid, unix.SIGKILL)
	}
}

// killAfter kills them unless they end by themselves within d.
func (p *process) killAfter(d time.Duration) {
	select {
	case <-p.done:
	case <-time.After(d):
		p.kill()
	}
}

// end kills what is left and waits until nothing is.
func (p *process) end() {
	p.kill()
	<-p.done
}

// code is the exit code, or 128 and the signal. Only after done.
func (p *process) code() int {
	st, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return 255
	case st.Signaled():
		return 128 + int(st.Signal())
	}
	return st.ExitStatus()
}

// killed tells whether SIGKILL ended the leader. Only after done.
func (p *process) killed() bool { return p.code() == 128+int(syscall.SIGKILL) }

// A tail keeps the last maxStderr bytes written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if over := len(t.b) - maxStderr; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(b), nil
}

// String gives what was kept, escaped.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return escape(t.b)
}

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// guard runs the watchdog and ends the run when ctx does. The function it returns
// stops both and waits for them.
func guard(ctx context.Context, cancel context.CancelCauseFunc, dog *watchdog, giveUp func()) (stop func()) {
	run, end := context.WithCancel(ctx)
	var owned sync.WaitGroup
	owned.Go(func() { dog.run(run, cancel) })
	owned.Go(func() {
		<-run.Done()
		if ctx.Err() != nil {
			giveUp()
		}
	})
	return func() {
		end()
		owned.Wait()
	}
}

// cause says why ctx ended, as a sentence.
func cause(ctx context.Context) error {
	return fmt.Errorf("run rsync: %w", context.Cause(ctx))
}
