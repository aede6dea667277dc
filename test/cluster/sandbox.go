package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// insideEnv says which of the three processes we are: unset, "init" or "tests".
const insideEnv = "CLSYNC_TEST_INSIDE"

// Main runs the tests of a package in a sandbox: private mount and process
// namespaces with an init of their own, which reaps what killed daemons leave
// behind. Where there is no root the tests run as they are, and Need skips them.
func Main(m *testing.M) {
	switch {
	case os.Getenv(insideEnv) == "tests":
		reap()
		code := m.Run()
		removeBinaries()
		os.Exit(code)
	case os.Getenv(insideEnv) == "init":
		os.Exit(initMain())
	case os.Getuid() != 0:
		os.Exit(m.Run())
	default:
		os.Exit(enter())
	}
}

// enter starts the sandbox's init and waits for it. The init dies with us, and
// all in its process namespace with it.
func enter() int {
	runtime.LockOSThread() // the death signal is tied to the thread that forks
	cmd := again("init")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "cluster tests: start a process in new namespaces:", err)
		return 1
	}
	go func() {
		for s := range signals { // ends with the process
			_ = cmd.Process.Signal(s)
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster tests:", err)
		return 1
	}
	return 0
}

// initMain is process 1 of the sandbox: it mounts, starts the tests and reaps.
func initMain() int {
	for _, step := range []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error {
			return unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		},
		func() error { return os.MkdirAll("/run/netns", 0o755) },
		func() error { return unix.Mount("tmpfs", "/run/netns", "tmpfs", 0, "mode=755") },
	} {
		if err := step(); err != nil {
			fmt.Fprintln(os.Stderr, "cluster tests: set up the sandbox:", err)
			return 1
		}
	}
	cmd := again("tests")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "cluster tests: start the tests:", err)
		return 1
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		for s := range signals { // ends with the process
			_ = cmd.Process.Signal(s)
		}
	}()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			fmt.Fprintln(os.Stderr, "cluster tests: wait:", err)
			return 1
		case pid == cmd.Process.Pid && ws.Signaled():
			fmt.Fprintln(os.Stderr, "cluster tests: ended by", ws.Signal())
			return 2
		case pid == cmd.Process.Pid:
			return ws.ExitStatus()
		}
	}
}

// again is this program once more, as another of the three.
func again(role string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"="+role)
	return cmd
}
