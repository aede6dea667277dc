package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// TestLateWriter opens the file for writing after the lease was taken: it waits,
// and gets the displaced inode.
func TestLateWriter(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		b.write("f", "held")
		l := b.look("f")
		opened := make(chan *os.File, 1)
		failpoint = func(step string, p signature.Path) {
			if step != "exchange" {
				return
			}
			// A writer who has resolved the name before the switch. Without waiting he is
			// told that a lease is in the way, and the lease is broken; then he waits.
			fd, err := unix.Open(b.at("f"), unix.O_PATH, 0)
			must(t, err)
			name := fmt.Sprintf("/proc/self/fd/%d", fd)
			if w, err := unix.Open(name, unix.O_WRONLY|unix.O_NONBLOCK, 0); err != unix.EAGAIN {
				t.Fatalf("no lease is held: %d, %v", w, err)
			}
			go func() {
				w, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
				unix.Close(fd)
				if err != nil {
					t.Error(err)
				}
				opened <- w
			}()
		}
		r := b.apply(Apply{Path: "f", Target: file("new"), Expect: l.Sig, Mark: l.Mark, Content: b.stage("x", "new")})[0]
		w := <-opened
		_, err := w.WriteString(" and a late line")
		must(t, err)
		if got := b.read("f"); got != "new" {
			t.Errorf("f: %s", got)
		}
		if r.Outcome != Done || !r.Resting {
			t.Fatalf("%+v", r)
		}
		rest(t, 0)
		s, err := b.tree.SweepGrace(context.Background())
		must(t, err)
		if s.Resting != 1 || len(s.Kept) != 0 {
			t.Errorf("while it is open: %+v", s)
		}
		w.Close()
		s, err = b.tree.SweepGrace(context.Background())
		must(t, err)
		if s.Resting != 0 || len(s.Kept) != 1 || s.Kept[0].Path != "f" {
			t.Fatalf("after it was closed: %+v", s)
		}
		if got := b.read(strings.TrimPrefix(s.Kept[0].File, b.dir)); got != "held and a late line" {
			t.Errorf("kept %s", got)
		}
		b.clean()
	})
}

func TestBlocked(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		b.write("f", "held")
		l := b.look("f")
		if out, err := exec.Command("chattr", "+i", b.at("f")).CombinedOutput(); err != nil {
			t.Skipf("needs chattr +i: %s", out)
		}
		defer exec.Command("chattr", "-i", b.at("f")).Run()
		l = b.look("f")
		r := b.one(Blocked, Apply{Path: "f", Target: file("new"), Expect: l.Sig, Mark: l.Mark, Content: b.stage("x", "new")})
		if !errors.Is(r.Err, unix.EPERM) {
			t.Errorf("%v", r.Err)
		}
		b.one(Blocked, Apply{Path: "f", Target: signature.Signature{Type: signature.Absent}, Expect: l.Sig, Mark: l.Mark})
		if got := b.read(".clsync/staging/b1/x"); got != "new" {
			t.Errorf("staged: %s", got)
		}
		for _, p := range []signature.Path{"../f", ".clsync/x", "/f", ""} {
			if r := b.apply(Apply{Path: p, Target: file("")})[0]; r.Outcome != Blocked || !errors.Is(r.Err, signature.ErrPath) {
				t.Errorf("path %q: %s, %v", p, r.Outcome, r.Err)
			}
		}
		b.clean()
	})
}
