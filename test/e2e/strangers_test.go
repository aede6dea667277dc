package e2e

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clsync/clsync/test/cluster"
)

// TestWrongKey_I7 has a node with another cluster's key: it is never let in.
func TestWrongKey_I7(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{Nodes: 3, Multicast: true, Prepare: func(n *cluster.Node) error {
		if n.Name != "c" {
			return nil
		}
		key, err := exec.Command(cluster.Binary(t, false), "keygen").Output()
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(n.Dir, "cluster.key"), key, 0o600)
	}})
	a, b, stranger := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	write(t, a.Path("inside"), "for members only\n")
	write(t, stranger.Path("outside"), "of a stranger\n")
	c.Until("on the member", wait, func() string {
		if _, err := os.Lstat(b.Path("inside")); err != nil {
			return err.Error()
		}
		return ""
	})
	// The stranger has had all the time that the member needed, and 3 s more.
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		for path, n := range map[string]*cluster.Node{"inside": stranger, "outside": a} {
			if _, err := os.Lstat(n.Path(path)); err == nil {
				t.Fatalf("%s came to %s", path, n.Name)
			}
		}
	}
	for _, p := range stranger.TreeStatus().Peers {
		if p.Connected {
			t.Errorf("the stranger is connected to %s", p.Name)
		}
	}
}

// TestLooseKeyIsRefused_I7 lets others read the key file: the daemon does not start.
func TestLooseKeyIsRefused_I7(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{Nodes: 1, Stopped: true})
	n := c.Nodes[0]
	must(t, os.Chmod(filepath.Join(n.Dir, "cluster.key"), 0o644))
	out, err := n.Clsync("node")
	if err == nil || !strings.Contains(out+err.Error(), "cluster.key") {
		t.Errorf("started with a key that others can read: %v %s", err, out)
	}
}

// TestGarbage_I12 sends random bytes to every port: nobody is impressed, and
// memory stays what it was.
func TestGarbage_I12(t *testing.T) {
	t.Parallel()
	c := connected(t, cluster.Options{Nodes: 2, Multicast: true})
	a := c.Nodes[0]
	before := resident(t, a)
	must(t, c.Net.Do(1, func() error {
		junk := make([]byte, 64<<10)
		for range 200 {
			if _, err := rand.Read(junk); err != nil {
				return err
			}
			for _, port := range []string{"7370", "7371"} {
				conn, err := net.DialTimeout("tcp4", a.Addr+":"+port, time.Second)
				if err != nil {
					return err
				}
				if err := conn.SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
					return err
				}
				_, _ = conn.Write(junk) // it may be cut off at any byte
				conn.Close()
			}
			for _, to := range []string{a.Addr + ":7371", a.Addr + ":7372"} {
				conn, err := net.Dial("udp4", to)
				if err != nil {
					return err
				}
				_, _ = conn.Write(junk[:1200]) // nobody need be there
				conn.Close()
			}
		}
		return nil
	}))
	write(t, a.Path("after"), "still here\n")
	c.WaitIdentical(wait)
	if after := resident(t, a); after > before+64<<10 {
		t.Errorf("resident memory rose from %d to %d KiB", before, after)
	}
}

// resident is how much memory a daemon has, in KiB.
func resident(t *testing.T, n *cluster.Node) (kib int) {
	t.Helper()
	for line := range strings.Lines(read(t, fmt.Sprintf("/proc/%d/status", n.PID()))) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
