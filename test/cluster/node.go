package cluster

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A Node is one daemon with its tree, state and address.
type Node struct {
	Name string
	Dir  string // everything that is the node's own
	Addr string
	Disk *Disk // that the tree is on

	// Wrap is put before the daemon's command line from the next Start on.
	Wrap []string

	index     int
	c         *Cluster
	run       *process
	unmounted bool
}

// Tree returns the root of the node's tree.
func (n *Node) Tree() string {
	if n.c.options.TreeIsMount {
		return filepath.Join(n.Dir, "fs")
	}
	return filepath.Join(n.Dir, "fs", "tree")
}

// Path returns a path in the node's tree.
func (n *Node) Path(elem ...string) string {
	return n.Tree() + "/" + strings.Join(elem, "/") // Join would clean the name
}

// Beside returns a folder on the tree's file system that is not in the tree.
func (n *Node) Beside() string { return filepath.Join(n.Dir, "fs", "beside") }

// Store returns the node's conflict store.
func (n *Node) Store() string { return n.Path(".clsync", "conflicts") }

func (n *Node) runDir() string     { return filepath.Join(n.Dir, "run") }
func (n *Node) configFile() string { return filepath.Join(n.Dir, "clsync.toml") }
func (n *Node) logFile() string    { return filepath.Join(n.Dir, "log") }

// make prepares everything but starts nothing.
func (n *Node) make(key []byte) error {
	for _, dir := range []string{n.Dir, filepath.Join(n.Dir, "state"), n.runDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(n.Dir, "cluster.key"), key, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(n.configFile(), []byte(n.c.config(n)), 0o600); err != nil {
		return err
	}
	var err error
	if n.Disk, err = NewDisk(n.c.options.FS, filepath.Join(n.Dir, "fs"), n.c.options.DiskSize); err != nil {
		return err
	}
	if !n.c.options.TreeIsMount {
		for _, dir := range []string{n.Tree(), n.Beside()} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
		}
	}
	if n.c.options.Prepare != nil {
		return n.c.options.Prepare(n)
	}
	return nil
}

// Start starts the daemon and waits until it answers for its status.
func (n *Node) Start() {
	n.c.t.Helper()
	n.Launch()
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := n.status()
		if err == nil {
			return
		}
		if n.run.over() || time.Now().After(deadline) {
			n.c.t.Fatalf("node %s does not answer: %v", n.Name, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Launch starts the daemon and waits for nothing.
func (n *Node) Launch() {
	n.c.t.Helper()
	args := append([]string{"nsenter", "--net=" + n.c.Net.Namespace(n.index), "--"}, n.Wrap...)
	args = append(args, n.c.binary, "node", "--config", n.configFile())
	p, err := startProcess(n.logFile(), args)
	if err != nil {
		n.c.t.Fatalf("start node %s: %v", n.Name, err)
	}
	n.run = p
}

func (n *Node) process() *process {
	if n.run == nil || n.run.over() {
		return nil
	}
	return n.run
}

// Running tells whether the daemon is there.
func (n *Node) Running() bool { return n.process() != nil }

// PID returns the daemon's process, 0 where there is none.
func (n *Node) PID() int {
	if p := n.process(); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

// Kill9 ends the daemon as a power cut would, as far as a process can tell.
func (n *Node) Kill9() {
	n.c.t.Helper()
	p := n.process()
	if p == nil {
		n.c.t.Fatalf("node %s is not running", n.Name)
	}
	p.kill()
}

// Stop asks the daemon to end, as systemd does. Over 5 seconds is an error.
func (n *Node) Stop() {
	n.c.t.Helper()
	p := n.process()
	if p == nil {
		n.c.t.Fatalf("node %s is not running", n.Name)
	}
	begin := time.Now()
	p.expected = true
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.c.t.Fatalf("stop node %s: %v", n.Name, err)
	}
	select {
	case <-p.done:
		if p.err != nil {
			n.c.t.Errorf("node %s stopped: %v", n.Name, p.err)
		}
	case <-time.After(7 * time.Second):
		n.c.t.Errorf("node %s has not stopped after %v", n.Name, time.Since(begin))
		p.kill()
		return
	}
	if took := time.Since(begin); took > 5*time.Second {
		n.c.t.Errorf("node %s took %v to stop, want 5 s at most", n.Name, took)
	}
}

// Pause stops the daemon's process; it notices nothing. Cont lets it go on.
func (n *Node) Pause() { n.signal(syscall.SIGSTOP) }

// Cont lets a paused daemon go on.
func (n *Node) Cont() { n.signal(syscall.SIGCONT) }

// Reload asks the daemon to read its configuration again.
func (n *Node) Reload() { n.signal(syscall.SIGHUP) }

func (n *Node) signal(s syscall.Signal) {
	n.c.t.Helper()
	if p := n.process(); p != nil {
		if err := p.cmd.Process.Signal(s); err != nil && !p.over() {
			n.c.t.Errorf("signal %v to node %s: %v", s, n.Name, err)
		}
	}
}

// Unmount takes the tree's file system away, Mount brings it back.
func (n *Node) Unmount() {
	n.c.t.Helper()
	if err := n.Disk.Unmount(); err != nil {
		n.c.t.Fatal(err)
	}
	n.unmounted = true
}

// Mount brings the tree's file system back.
func (n *Node) Mount() {
	n.c.t.Helper()
	if err := n.Disk.Mount(); err != nil {
		n.c.t.Fatal(err)
	}
	n.unmounted = false
}

// Clsync runs a command of the program against this node.
func (n *Node) Clsync(args ...string) (string, error) {
	var out, errs bytes.Buffer
	args = append(args, "--config", n.configFile())
	cmd := exec.Command("nsenter", append([]string{"--net=" + n.c.Net.Namespace(n.index), "--", n.c.binary}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("clsync %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// Log returns all that the daemon has logged.
func (n *Node) Log() string {
	b, err := os.ReadFile(n.logFile())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// LogTail returns the last lines of the log.
func (n *Node) LogTail(lines int) string {
	all := strings.Split(strings.TrimSpace(n.Log()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// examine fails the test for what no daemon may do, whatever the test looked at.
func (n *Node) examine() {
	if n.run != nil && !n.run.expected {
		n.c.t.Errorf("node %s ended by itself: %v", n.Name, n.run.err)
	}
	lines := strings.Split(n.Log(), "\n")
	for _, bad := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
		if i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, bad) }); i >= 0 {
			n.c.t.Errorf("node %s: %s", n.Name, strings.Join(lines[i:min(i+40, len(lines))], "\n"))
			return
		}
	}
}
