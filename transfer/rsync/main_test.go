package rsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clsync/clsync/signature"
)

// The test binary is also the helper, the jail, and, under a name that begins with
// fake-, an rsync that ends as its name says.
func TestMain(m *testing.M) {
	if name, ok := strings.CutPrefix(filepath.Base(os.Args[0]), "fake-"); ok {
		os.Exit(fake(name))
	}
	if os.Args[0] == "rsync" { // as JailMain calls it
		os.Exit(spy(os.Args[1], os.Args[2]))
	}
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "rsh":
			os.Exit(HelperMain(os.Args[2:]))
		case "jail":
			os.Exit(JailMain(os.Args[2:]))
		}
	}
	goleak.VerifyTestMain(m)
}

func fake(name string) int {
	if text, ok := strings.CutPrefix(name, "version-"); ok {
		if os.Args[1] == "--version" {
			fmt.Printf("rsync  version %s  protocol version 31\n", text)
			return 0
		}
		return 1
	}
	if name == "hang" {
		// With a child, as rsync has one.
		c := exec.Command("sleep", "60")
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		if c.Run() != nil {
			return 1
		}
		return 0
	}
	code, err := strconv.Atoi(name)
	if err != nil {
		return 99
	}
	fmt.Fprintf(os.Stderr, "rsync: [\x1b] cause\nrsync error: as told (code %d)\n", code)
	return code
}

func fakeRsync(t testing.TB, name string) string {
	p := filepath.Join(t.TempDir(), "fake-"+name)
	if err := os.Symlink(self(t), p); err != nil {
		t.Fatal(err)
	}
	return p
}

func self(t testing.TB) string {
	p, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// helper calls the test binary. Under the race detector a program sleeps for a
// second at its end, unless told not to.
func helper(argv ...string) []string {
	if race {
		return append([]string{"/usr/bin/env", "GORACE=atexit_sleep_ms=0"}, argv...)
	}
	return argv
}

var real = func() Version {
	v, err := Probe(context.Background(), "rsync")
	if err != nil {
		return Version{}
	}
	return v
}()

func needRsync(t testing.TB) string {
	if real.Path == "" {
		t.Skip("needs rsync " + MinVersion + " or later in PATH")
	}
	return real.Path
}

func needRoot(t testing.TB) {
	if err := privileged(); err != nil {
		t.Skip("needs root with CAP_SYS_ADMIN:", err)
	}
}

// a run is one batch between two folders.
type run struct {
	t         testing.TB
	transport string
	src, tree string
	staging   string
	send      SendSpec
	recv      ReceiveSpec
	wrap      func(ServerConn) ServerConn
}

func newRun(t testing.TB, lane Lane) *run {
	bin := needRsync(t)
	r := &run{t: t, transport: "socketpair", src: t.TempDir(), tree: t.TempDir()}
	r.staging = filepath.Join(r.tree, signature.Private, "staging", "b17")
	if err := os.MkdirAll(r.staging, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(r.src)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	compare := ""
	if lane == LargeCompare {
		compare = "../../.."
	}
	r.send = SendSpec{Binary: bin, Helper: helper(self(t), "rsh"), Dir: dir, Lane: lane, Batch: "b17", CompareDest: compare}
	r.recv = ReceiveSpec{
		Binary: bin, Helper: helper(self(t), "jail"), Lane: lane, StagingDir: r.staging, TreeRoot: r.tree,
		CompareDest: compare, Jail: Off,
	}
	return r
}

type ends struct {
	sent, got       Result
	sendErr, gotErr error
}

func (r *run) do(ctx context.Context) (e ends) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	a, b := connect(r.t, r.transport)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := b.accept(func(argv []string) error {
			return CheckPeerArgs(r.recv.Lane, "b17", r.recv.CompareDest, argv)
		})
		if err != nil {
			b.Close()
			e.gotErr = err
			return
		}
		var c ServerConn = b
		if r.wrap != nil {
			c = r.wrap(b)
		}
		e.got, e.gotErr = Receive(ctx, r.recv, c)
	}()
	e.sent, e.sendErr = Send(ctx, r.send, a)
	<-done
	return e
}

func (r *run) must() ends {
	r.t.Helper()
	e := r.do(r.t.Context())
	if e.sendErr != nil || e.gotErr != nil {
		r.t.Fatalf("send: %v\nreceive: %v\n%+v\n%+v", e.sendErr, e.gotErr, e.sent, e.got)
	}
	return e
}

func (r *run) write(name, content string) {
	r.t.Helper()
	write(r.t, filepath.Join(r.src, name), content)
	r.send.Names = append(r.send.Names, signature.Path(name))
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// until waits for a predicate.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10 s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// cutConn is a stream that breaks after some bytes, or stands still.
type cutConn struct {
	ServerConn
	left  int
	then  func()
	block bool
}

func (c *cutConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		if c.then != nil {
			c.then()
			c.then = nil
		}
		if !c.block {
			return 0, errors.New("cut")
		}
		return c.ServerConn.Read(b)
	}
	n, err := c.ServerConn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

var _ io.ReadWriteCloser = (*cutConn)(nil)
