package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A demo is the three nodes in their throwaway folders.
type demo struct {
	ctx    context.Context
	binary string
	dir    string
	nodes  []*node
}

type node struct {
	name           string
	dir            string
	tree           string
	config         string
	listen, gossip string
	cmd            *exec.Cmd
	ended          chan error // one value, when the daemon has ended
}

func (d *demo) start() error {
	key, err := exec.CommandContext(d.ctx, d.binary, "keygen").Output()
	if err != nil {
		return fmt.Errorf("clsync keygen: %w", withStderr(err))
	}
	ports, err := freePorts(6)
	if err != nil {
		return err
	}
	for i, name := range []string{"a", "b", "c"} {
		dir := filepath.Join(d.dir, name)
		d.nodes = append(d.nodes, &node{
			name: name, dir: dir, tree: filepath.Join(dir, "tree"), config: filepath.Join(dir, "clsync.toml"),
			listen: fmt.Sprintf("127.0.0.1:%d", ports[2*i]), gossip: fmt.Sprintf("127.0.0.1:%d", ports[2*i+1]),
		})
	}
	fmt.Printf("Three nodes of one cluster on this machine:\n\n")
	for _, n := range d.nodes {
		if err := d.launch(n, key); err != nil {
			return err
		}
		fmt.Printf("  %s  %s  sessions on %s\n", n.name, n.tree, n.listen)
	}
	begin := time.Now()
	if err := d.until("the nodes to find each other", d.connected); err != nil {
		return err
	}
	fmt.Printf("\nAll three have found each other and are watching (%s) after %s.\n", d.backend(), since(begin))
	return nil
}

func (d *demo) launch(n *node, key []byte) error {
	for _, dir := range []string{n.tree, filepath.Join(n.dir, "state"), filepath.Join(n.dir, "run")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	keyFile := filepath.Join(n.dir, "cluster.key")
	if err := os.WriteFile(keyFile, key, 0o600); err != nil {
		return err
	}
	var seeds []string
	for _, o := range d.nodes {
		if o != n {
			seeds = append(seeds, fmt.Sprintf("%q", o.gossip))
		}
	}
	config := fmt.Sprintf(`name = %q
cluster = "demo"
key_file = %q
state_dir = %q
run_dir = %q
listen = %q

[gossip]
listen = %q
seeds = [%s]
fast = true

[multicast]
enabled = false

[[tree]]
name = "data"
path = %q
`, n.name, keyFile, filepath.Join(n.dir, "state"), filepath.Join(n.dir, "run"), n.listen, n.gossip, strings.Join(seeds, ", "), n.tree)
	if err := os.WriteFile(n.config, []byte(config), 0o600); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(n.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	n.cmd = exec.Command(d.binary, "node", "--config", n.config)
	n.cmd.Stdout, n.cmd.Stderr = log, log
	// An interrupt from the terminal is for the demo, which stops its nodes itself.
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := n.cmd.Start(); err != nil {
		return fmt.Errorf("start node %s: %w", n.name, err)
	}
	n.ended = make(chan error, 1)
	go func() { n.ended <- n.cmd.Wait() }() // stop and until take the value
	return nil
}

// stop ends all nodes and waits for them.
func (d *demo) stop() error {
	var errs []error
	for _, n := range d.nodes {
		if n.ended != nil {
			_ = n.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
		}
	}
	for _, n := range d.nodes {
		if n.ended == nil {
			continue
		}
		select {
		case err := <-n.ended:
			if err != nil {
				errs = append(errs, fmt.Errorf("node %s ended: %w", n.name, err))
			}
		case <-time.After(10 * time.Second):
			_ = n.cmd.Process.Kill()
			<-n.ended
			errs = append(errs, fmt.Errorf("node %s did not stop within 10 s", n.name))
		}
	}
	return errors.Join(errs...)
}

// until polls until there is nothing missing any more.
func (d *demo) until(what string, missing func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := missing()
		if err == nil {
			return nil
		}
		for _, n := range d.nodes {
			select {
			case end := <-n.ended:
				n.ended <- end
				return fmt.Errorf("node %s ended by itself: %v\n%s", n.name, end, n.logTail())
			default:
			}
		}
		if d.ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for %s: %w", patience, what, err)
		}
		time.Sleep(time.Millisecond)
	}
}

type status struct {
	Trees []struct {
		State     string
		Backend   string
		Conflicts int
		Peers     []struct{ Connected bool }
	}
}

func (d *demo) status(n *node) (status, error) {
	var s status
	// The exit status tells health; there is an answer either way.
	out, err := exec.CommandContext(d.ctx, d.binary, "status", "--json", "--config", n.config).Output()
	if len(out) == 0 {
		return s, withStderr(err)
	}
	if err := json.Unmarshal(out, &s); err != nil {
		return s, fmt.Errorf("status of %s: %w", n.name, err)
	}
	if len(s.Trees) != 1 {
		return s, fmt.Errorf("status of %s: %d trees", n.name, len(s.Trees))
	}
	return s, nil
}

func (d *demo) connected() error {
	for _, n := range d.nodes {
		s, err := d.status(n)
		if err != nil {
			return err
		}
		connected := 0
		for _, p := range s.Trees[0].Peers {
			if p.Connected {
				connected++
			}
		}
		if s.Trees[0].State != "running" || connected < len(d.nodes)-1 {
			return fmt.Errorf("node %s is %s and connected to %d nodes", n.name, s.Trees[0].State, connected)
		}
	}
	return nil
}

func (d *demo) backend() string {
	s, err := d.status(d.nodes[0])
	if err != nil {
		return err.Error()
	}
	return s.Trees[0].Backend
}

func (n *node) logTail() string {
	b, err := os.ReadFile(filepath.Join(n.dir, "log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// freePorts asks the kernel for ports that nobody has now, on TCP and on UDP.
func freePorts(count int) ([]int, error) {
	var ports []int
	for len(ports) < count {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return nil, err
		}
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			continue
		}
		defer u.Close()
		ports = append(ports, port)
	}
	return ports, nil
}

func withStderr(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return err
}
