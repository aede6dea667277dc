package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/clsync/clsync/test/cluster"
	"github.com/clsync/clsync/test/load"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// backends runs a test with each way of watching.
func backends(t *testing.T, test func(t *testing.T, monitor string)) {
	for _, monitor := range []string{"fanotify", "fsnotify"} {
		t.Run(monitor, func(t *testing.T) {
			t.Parallel()
			test(t, monitor)
		})
	}
}

// connected makes a cluster whose nodes see one another and have nothing to do.
func connected(t *testing.T, o cluster.Options) *cluster.Cluster {
	t.Helper()
	c := cluster.New(t, o)
	c.WaitConnected(wait)
	c.WaitIdentical(wait)
	for _, n := range c.Nodes {
		if b := n.TreeStatus().Backend; o.Monitor != "" && !strings.Contains(b, o.Monitor) {
			t.Fatalf("node %s watches by %q, want %q", n.Name, b, o.Monitor)
		}
	}
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

// put lets a file appear at once and complete, as a program does that cares.
func put(n *cluster.Node, path, content string) error {
	tmp := n.Beside() + "/put"
	if err := os.WriteFile(tmp, []byte(content), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, n.Path(path))
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}

func command(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// nothingLost fails the test for every content of the history that is nowhere.
func nothingLost(t testing.TB, c *cluster.Cluster, h *load.History) {
	t.Helper()
	lost, err := load.Lost(h, c.Trees(), c.Stores())
	must(t, err)
	for i, l := range lost {
		if i == 10 {
			t.Errorf("and %d more", len(lost)-i)
			break
		}
		t.Error("lost: ", l)
	}
}

// asLeft fails the test where a tree does not show what the writers left.
func asLeft(t testing.TB, root string, writers []*load.Writer) {
	t.Helper()
	for _, w := range writers {
		wrong, err := w.Wrong(root)
		must(t, err)
		if len(wrong) > 0 {
			t.Errorf("%s's paths: %s", w.Node, strings.Join(wrong[:min(10, len(wrong))], "\n"))
		}
	}
}

// writers makes one writer per node, each with a folder of its own.
func writers(c *cluster.Cluster, h *load.History, rate int) []*load.Writer {
	var all []*load.Writer
	for i, n := range c.Nodes {
		all = append(all, &load.Writer{Node: n.Name, Root: n.Tree(), Dir: "of-" + n.Name, Rate: rate, Seed: uint64(i + 1), History: h})
	}
	return all
}

func name(i int) string { return fmt.Sprintf("f%04d", i) }
