package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A wire is the network that two daemons share and nobody else: a loopback device
// in a namespace of its own, where what crosses it can be counted.
type wire struct {
	work chan func()
	own  bool
	tid  int
}

func newWire(b *testing.B) *wire {
	b.Helper()
	w := &wire{work: make(chan func())}
	ready := make(chan error)
	go func() { // close ends it
		// Never unlocked: the thread, with its network, ends with the goroutine.
		runtime.LockOSThread()
		var err error
		if os.Geteuid() == 0 {
			if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
				err = loopbackUp()
			}
			w.own = err == nil
		}
		w.tid = unix.Gettid()
		ready <- err
		for f := range w.work {
			f()
		}
	}()
	must(b, <-ready)
	return w
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	return nil
}

// do runs f in the network: what it starts belongs there.
func (w *wire) do(f func() error) error {
	done := make(chan error, 1)
	w.work <- func() { done <- f() }
	return <-done
}

// bytes is what has crossed so far, packet headers and gossip included; false where
// the network is not ours alone.
func (w *wire) bytes() (int64, bool) {
	if !w.own {
		return 0, false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/net/dev", w.tid))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "lo:"); ok {
			var n int64
			if _, err := fmt.Sscan(rest, &n); err != nil {
				return 0, false
			}
			return n, true
		}
	}
	return 0, false
}

func (w *wire) close() { close(w.work) }
