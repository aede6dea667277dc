package rsync

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// working finds processes that work in one of the folders, or are children of ours.
func working(t *testing.T, dirs ...string) (found []string) {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		cwd, err := os.Readlink(p + "/cwd")
		if err != nil {
			continue // gone, or a kernel thread
		}
		for _, d := range dirs {
			if filepath.Base(p) != strconv.Itoa(os.Getpid()) && (cwd == d || strings.HasPrefix(cwd, d+"/")) {
				found = append(found, p+" in "+cwd)
			}
		}
		stat, err := os.ReadFile(p + "/stat")
		if err != nil {
			continue
		}
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if f[1] == strconv.Itoa(os.Getpid()) {
			found = append(found, p+" "+string(stat[:40]))
		}
	}
	return found
}

func (r *run) nobodyIsLeft() {
	r.t.Helper()
	if found := working(r.t.(*testing.T), r.src, r.tree); len(found) > 0 {
		r.t.Errorf("left behind: %q", found)
	}
}

func TestTruncatedWhileSent(t *testing.T) {
	r := newRun(t, Small)
	r.write("a", strings.Repeat("x", 32<<20))
	r.write("b", "b")
	r.wrap = func(c ServerConn) ServerConn {
		return &cutConn{ServerConn: c, left: 1 << 20, block: true, then: func() {
			if err := os.Truncate(filepath.Join(r.src, "a"), 100); err != nil {
				t.Error(err)
			}
		}}
	}
	e := r.must()
	if e.sent.Code != 23 {
		t.Errorf("code %d: %s", e.sent.Code, e.sent.Stderr)
	}
	if read(t, r.staging+"/b") != "b" {
		t.Error("b is not staged")
	}
	r.nobodyIsLeft()
}

func TestDiskFull(t *testing.T) {
	needRoot(t)
	modes(t, func(t *testing.T, mode JailMode) {
		r := newRun(t, Small)
		if err := unix.Mount("tmpfs", r.tree, "tmpfs", 0, "size=8m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(r.tree, 0); err != nil {
				t.Error("unmount:", err)
			}
		})
		if err := os.MkdirAll(r.staging, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, r.tree+"/live", "live")
		before := snapshot(t, r.tree)
		r.recv.Jail = mode
		r.write("big", strings.Repeat("x", 20<<20))
		e := r.do(t.Context())
		if !errors.Is(e.gotErr, ErrBatch) || e.got.Code != 11 || !strings.Contains(e.gotErr.Error(), "No space left") {
			t.Errorf("receive: %v, %+v", e.gotErr, e.got)
		}
		if !errors.Is(e.sendErr, ErrBatch) || e.sent.PeerCode != 11 || !strings.Contains(e.sendErr.Error(), "No space left") {
			t.Errorf("send: %v, %+v", e.sendErr, e.sent)
		}
		if err := os.RemoveAll(r.staging); err != nil {
			t.Fatal(err)
		}
		diff(t, before, snapshot(t, r.tree))
		r.nobodyIsLeft()
	})
}

func TestOtherArgumentsAreRefused(t *testing.T) {
	r := newRun(t, Small)
	r.write("a", "x")
	r.recv.Lane = LargeReflink
	e := r.do(t.Context())
	if !errors.Is(e.sendErr, ErrRefused) || !errors.Is(e.gotErr, ErrArgs) {
		t.Errorf("send: %v\nreceive: %v", e.sendErr, e.gotErr)
	}
	r.nobodyIsLeft()
}

func TestStreamBreaks(t *testing.T) {
	modes(t, func(t *testing.T, mode JailMode) {
		for _, after := range []int{0, 3, 200, 1 << 20} {
			r := newRun(t, Small)
			r.recv.Jail = mode
			r.write("a", strings.Repeat("x", 4<<20))
			r.wrap = func(c ServerConn) ServerConn { return &cutConn{ServerConn: c, left: after} }
			e := r.do(t.Context())
			if !errors.Is(e.sendErr, ErrBatch) || !errors.Is(e.gotErr, ErrBatch) || e.got.Early {
				t.Errorf("after %d: send: %v\nreceive: %v", after, e.sendErr, e.gotErr)
			}
			r.nobodyIsLeft()
		}
	})
}

// The peer's rsync is killed: its daemon does not call that an orderly end.
func TestPeerIsKilled(t *testing.T) {
	r := newRun(t, Small)
	r.write("a", strings.Repeat("x", 4<<20))
	r.wrap = func(c ServerConn) ServerConn {
		return &cutConn{ServerConn: c, left: 1 << 20, block: true, then: func() {
			for _, p := range working(t, r.src) {
				pid, err := strconv.Atoi(strings.TrimPrefix(strings.Fields(p)[0], "/proc/"))
				if err == nil && strings.Contains(p, " in "+r.src) {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}
		}}
	}
	e := r.do(t.Context())
	if !errors.Is(e.sendErr, ErrBatch) || !errors.Is(e.gotErr, ErrBatch) || e.got.Early || e.sent.Code != 137 {
		t.Errorf("send: %v, %+v\nreceive: %v, %+v", e.sendErr, e.sent, e.gotErr, e.got)
	}
	r.nobodyIsLeft()
}

func TestCancelLeavesNobody(t *testing.T) {
	modes(t, func(t *testing.T, mode JailMode) {
		for _, after := range []int{0, 1 << 20} {
			r := newRun(t, Small)
			r.recv.Jail = mode
			r.write("a", strings.Repeat("x", 4<<20))
			ctx, cancel := context.WithCancel(t.Context())
			hold := make(chan struct{})
			r.wrap = func(c ServerConn) ServerConn {
				return &cutConn{ServerConn: c, left: after, block: true, then: func() { cancel(); <-hold }}
			}
			time.AfterFunc(100*time.Millisecond, func() { close(hold) })
			e := r.do(ctx)
			if !errors.Is(e.sendErr, context.Canceled) || !errors.Is(e.gotErr, context.Canceled) {
				t.Errorf("send: %v\nreceive: %v", e.sendErr, e.gotErr)
			}
			r.nobodyIsLeft()
		}
	})
}

func TestNothingMoves(t *testing.T) {
	r := newRun(t, Small)
	_, b := connect(t, "socketpair")
	r.recv.Timeout = 50 * time.Millisecond
	_, err := Receive(t.Context(), r.recv, b)
	if !errors.Is(err, ErrBatch) || !strings.Contains(err.Error(), "nothing moved for 50ms") {
		t.Error(err)
	}
	r.nobodyIsLeft()
}

// peerOf plays a peer that reads what it gets and says what it is told to.
func peerOf(t *testing.T, f *framed, say string, orderly bool) (done chan struct{}) {
	done = make(chan struct{})
	go func() {
		defer close(done)
		if say != "" {
			if err := f.put('D', []byte(say)); err != nil {
				t.Log("peer:", err)
			}
		}
		if orderly {
			if err := f.CloseWrite(); err != nil {
				t.Log("peer:", err)
			}
		}
		buf := make([]byte, 4096)
		for {
			if _, err := f.Read(buf); err != nil {
				return
			}
		}
	}()
	return done
}

func TestLyingPeer(t *testing.T) {
	modes(t, func(t *testing.T, mode JailMode) {
		for _, say := range []string{"", "\x20\x00\x00\x00", "\x20\x00\x00\x00" + strings.Repeat("\xff", 1000), strings.Repeat("A", 100000)} {
			r := newRun(t, Small)
			r.recv.Jail = mode
			a, b := connect(t, "socketpair")
			done := peerOf(t, a, say, true)
			res, err := Receive(t.Context(), r.recv, b)
			if err == nil && !res.Early {
				t.Errorf("%.20q went well: %+v", say, res)
			}
			<-done
			if a.exit && err == nil && a.code != res.Code {
				t.Errorf("peer was told %d, not %d", a.code, res.Code)
			}
			r.nobodyIsLeft()
		}
	})
}

func TestFakeRsyncCodes(t *testing.T) {
	for code, want := range map[int]error{0: nil, 23: nil, 24: nil, 11: ErrBatch, 12: ErrBatch, 30: ErrBatch, 35: ErrBatch, 255: ErrBatch, 1: ErrBug, 2: ErrBug, 13: ErrBug} {
		r := newRun(t, Small)
		r.write("a", "x")
		fake := fakeRsync(t, strconv.Itoa(code))

		r.recv.Binary = fake
		a, b := connect(t, "socketpair")
		done := peerOf(t, a, "", false)
		res, err := Receive(t.Context(), r.recv, b)
		if !errors.Is(err, want) || res.Code != code || !strings.Contains(res.Stderr, `[\x1b] cause`) {
			t.Errorf("receive, %d: %v, %+v", code, err, res)
		}
		<-done
		if a.code != code || !a.exit {
			t.Errorf("the peer of %d was told %d", code, a.code)
		}

		r.send.Binary = fake
		a, _ = connect(t, "socketpair")
		res, err = Send(t.Context(), r.send, a)
		if want == nil {
			want = ErrBug // it never called its helper
		}
		if !errors.Is(err, want) || res.Code != code {
			t.Errorf("send, %d: %v, %+v", code, err, res)
		}
	}
}

func TestHungRsyncAndItsChildAreKilled(t *testing.T) {
	r := newRun(t, Small)
	r.write("a", "x")
	r.send.Binary, r.recv.Binary = fakeRsync(t, "hang"), fakeRsync(t, "hang")
	for name, f := range map[string]func(context.Context) error{
		"send": func(ctx context.Context) error { a, _ := connect(t, "tcp"); _, err := Send(ctx, r.send, a); return err },
		"receive": func(ctx context.Context) error {
			_, b := connect(t, "tcp")
			_, err := Receive(ctx, r.recv, b)
			return err
		},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f(ctx) }()
		until(t, "two processes", func() bool {
			n := 0
			for _, p := range working(t, r.src, r.tree) {
				if strings.Contains(p, " in ") {
					n++
				}
			}
			return n >= 2
		})
		cancel(fmt.Errorf("enough"))
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "enough") {
			t.Errorf("%s: %v", name, err)
		}
		r.nobodyIsLeft()
	}
}

func TestFileSizeLimit(t *testing.T) {
	modes(t, func(t *testing.T, mode JailMode) {
		r := newRun(t, Small)
		r.recv.Jail, r.recv.Limits.FileSize = mode, 1<<20
		r.write("big", strings.Repeat("x", 4<<20))
		e := r.do(t.Context())
		if e.gotErr == nil || e.sendErr == nil || e.got.Early {
			t.Errorf("receive: %v, %+v", e.gotErr, e.got)
		}
		if _, err := os.Stat(r.staging + "/big"); err == nil {
			t.Error("staged beyond the limit")
		}
		r.nobodyIsLeft()
	})
}

func TestStagingIsReachedThroughNoLink(t *testing.T) {
	r := newRun(t, Small)
	outside := t.TempDir()
	if err := os.MkdirAll(filepath.Join(outside, "staging/b17"), 0o700); err != nil {
		t.Fatal(err)
	}
	private := filepath.Dir(filepath.Dir(r.staging))
	if err := os.Rename(private, private+"-moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, private); err != nil {
		t.Fatal(err)
	}
	_, b := connect(t, "socketpair")
	if _, err := Receive(t.Context(), r.recv, b); !errors.Is(err, unix.ELOOP) {
		t.Error(err)
	}
}
