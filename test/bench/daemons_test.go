package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/clsync/clsync/node/control"
)

// options are how daemons are set up, where it is not the plain way.
type options struct {
	tree   string // lines for the tree's configuration
	gossip string // and for gossip
}

// daemons are two of ours.
type daemons struct {
	layout
	b      *testing.B
	wire   *wire
	nodes  [2]*daemon
	closed bool
}

type daemon struct {
	dir    string
	client *control.Client
	cmd    *exec.Cmd
	done   chan struct{} // closed when it has ended
}

var shipped struct {
	once sync.Once
	path string
	err  error
}

// program is the daemon as it is shipped, built once.
func program(b *testing.B) string {
	b.Helper()
	shipped.once.Do(func() {
		if shipped.path = os.Getenv("CLSYNC_BINARY"); shipped.path != "" {
			return
		}
		out, err := exec.Command("go", "env", "GOMOD").Output()
		if err != nil {
			shipped.err = err
			return
		}
		dir, err := os.MkdirTemp("", "clsync-test-bench-") // removed by the next run, if not by its tester
		if err != nil {
			shipped.err = err
			return
		}
		shipped.path = filepath.Join(dir, "clsync")
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", shipped.path, "./cmd/clsync")
		cmd.Dir = filepath.Dir(strings.TrimSpace(string(out)))
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		shipped.err = run(cmd)
	})
	must(b, shipped.err)
	return shipped.path
}

func newDaemons(b *testing.B, on string, o options) *daemons {
	b.Helper()
	d := prepareDaemons(b, on, o)
	d.start()
	return d
}

// prepareDaemons makes everything but starts nothing.
func prepareDaemons(b *testing.B, on string, o options) *daemons {
	b.Helper()
	d := &daemons{layout: newLayout(b, on), b: b, wire: newWire(b)}
	key, err := exec.Command(program(b), "keygen").Output()
	must(b, err)
	ports := freePorts(b, 4)
	for i, name := range []string{"a", "b"} {
		dir := filepath.Join(d.dir, name)
		n := &daemon{dir: dir, client: control.NewClient(filepath.Join(dir, "run", "control.sock"))}
		d.nodes[i] = n
		for _, sub := range []string{"state", "run"} {
			must(b, os.MkdirAll(filepath.Join(dir, sub), 0o700))
		}
		must(b, os.WriteFile(filepath.Join(dir, "cluster.key"), key, 0o600))
		config := fmt.Sprintf("name = %q\ncluster = \"bench\"\nkey_file = %q\nstate_dir = %q\nrun_dir = %q\nlisten = \"127.0.0.1:%d\"\n",
			name, dir+"/cluster.key", dir+"/state", dir+"/run", ports[2*i])
		config += fmt.Sprintf("[gossip]\nlisten = \"127.0.0.1:%d\"\nseeds = [\"127.0.0.1:%d\"]\n%s\n[multicast]\nenabled = false\n", ports[2*i+1], ports[3-2*i], o.gossip)
		config += fmt.Sprintf("[[tree]]\nname = \"data\"\npath = %q\n%s", dir+"/tree", o.tree)
		must(b, os.WriteFile(dir+"/clsync.toml", []byte(config), 0o600))
	}
	b.Cleanup(d.close)
	return d
}

func freePorts(b *testing.B, n int) (ports []int) {
	b.Helper()
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		must(b, err)
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// start starts both and returns when they are connected and have nothing to do.
func (d *daemons) start() {
	d.b.Helper()
	for _, n := range d.nodes {
		log, err := os.OpenFile(filepath.Join(n.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		must(d.b, err)
		n.cmd = exec.Command(program(d.b), "node", "--config", filepath.Join(n.dir, "clsync.toml"))
		n.cmd.Stdout, n.cmd.Stderr = log, log
		n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		err = d.wire.do(n.cmd.Start)
		log.Close()
		must(d.b, err)
		n.done = make(chan struct{})
		go func(cmd *exec.Cmd, done chan struct{}) { // stop waits for it
			_ = cmd.Wait() // it was told to end; one that ends by itself shows in status
			close(done)
		}(n.cmd, n.done)
	}
	d.rest()
}

// stop ends both and returns when they are gone.
func (d *daemons) stop() {
	for _, n := range d.nodes {
		if n.cmd != nil {
			_ = n.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
		}
	}
	for _, n := range d.nodes {
		if n.cmd == nil {
			continue
		}
		select {
		case <-n.done:
		case <-time.After(10 * time.Second):
			_ = n.cmd.Process.Kill()
			<-n.done
		}
		n.cmd = nil
	}
}

func (d *daemons) close() {
	if d.closed {
		return
	}
	d.closed = true
	d.stop()
	d.wire.close()
	if d.b.Failed() {
		for _, n := range d.nodes {
			text, _ := os.ReadFile(filepath.Join(n.dir, "log")) // none is as good as empty
			d.b.Logf("the end of %s:\n%s", n.dir, text[max(0, len(text)-4000):])
		}
	}
}

func (d *daemons) name() string { return "clsync" }
func (d *daemons) exact() bool  { return true }

func (n *daemon) status() (control.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return n.client.Status(ctx)
}

// rest waits until both are connected and neither has anything to do.
func (d *daemons) rest() {
	d.b.Helper()
	var why string
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(10 * time.Millisecond) {
		if why = d.busy(); why == "" {
			return
		}
	}
	d.b.Fatalf("not at rest: %s", why)
}

func (d *daemons) busy() string {
	for i, n := range d.nodes {
		s, err := n.status()
		if err != nil {
			return err.Error()
		}
		t := s.Trees[0]
		switch {
		case t.State != control.Running:
			return fmt.Sprintf("%d is %s (%s)", i, t.State, t.Reason)
		case len(s.Peers) == 0 || !s.Peers[0].Connected:
			return fmt.Sprintf("%d is not connected", i)
		case t.Pending > 0 || t.Busy > 0 || t.Queue > 0 || len(t.Peers) == 0 || t.Peers[0].Records > 0:
			return fmt.Sprintf("%d: pending %d, busy %d, queue %d, peers %+v", i, t.Pending, t.Busy, t.Queue, t.Peers)
		}
	}
	return ""
}

// counters are those of the first node.
func (d *daemons) counters() control.Counters {
	d.b.Helper()
	s, err := d.nodes[0].status()
	must(d.b, err)
	return s.Trees[0].Counters
}
