package cluster

import (
	"os"
	"os/exec"
	"syscall"
	"time"
)

// A process is one life of a daemon.
type process struct {
	cmd      *exec.Cmd
	done     chan struct{} // closed when it has ended
	err      error         // how, once done is closed
	expected bool          // we ended it; written before, read after done
}

// startProcess starts a command with its output going to the end of a file. It
// ends with the sandbox at the latest.
func startProcess(log string, args []string) (*process, error) {
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GOTRACEBACK=all", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() { // owned by kill, Stop and close, which wait for done
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill ends the process and waits until it is gone. What it had started is left
// alone, as after a crash.
func (p *process) kill() {
	p.expected = true
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.done
}

// dump ends the process in a way that has it write what all its goroutines do.
func (p *process) dump() {
	p.expected = true
	_ = p.cmd.Process.Signal(syscall.SIGQUIT) // it may have ended already
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
	}
}
