package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/test/cluster"
	"github.com/clsync/clsync/test/fixture"
)

// TestHostileNames_I7 uses every hostile name in every operation.
func TestHostileNames_I7(t *testing.T) {
	backends(t, func(t *testing.T, monitor string) {
		c := connected(t, cluster.Options{Nodes: 2, Monitor: monitor})
		a, b := c.Nodes[0], c.Nodes[1]
		all := func(step string, on *cluster.Node, do func(name string) error) {
			t.Helper()
			for _, n := range fixture.HostileNames {
				if err := do(n); err != nil {
					t.Fatalf("%s %q: %v", step, n, err)
				}
			}
			t.Logf("%s on %s", step, on.Name)
			c.WaitIdentical(wait)
		}
		all("create", a, func(n string) error { return os.WriteFile(a.Path(n), []byte(n), 0o644) })
		all("append", b, func(n string) error {
			f, err := os.OpenFile(b.Path(n), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("more")
			return errors.Join(err, f.Close())
		})
		all("chmod", a, func(n string) error { return os.Chmod(a.Path(n), 0o600) })
		must(t, os.Mkdir(b.Path("-into\n"), 0o755))
		all("rename", b, func(n string) error { return os.Rename(b.Path(n), b.Path("-into\n", n)) })
		all("link", a, func(n string) error { return os.Link(a.Path("-into\n", n), a.Path(n)) })
		all("symlink", b, func(n string) error { return os.Symlink(n, b.Path("-into\n", n+"@")) })
		all("unlink", a, func(n string) error { return os.Remove(a.Path(n)) })
		all("folder", b, func(n string) error {
			return errors.Join(os.Mkdir(b.Path(n), 0o700), os.WriteFile(b.Path(n, n), []byte(n), 0o644))
		})
		all("delete", a, func(n string) error { return os.RemoveAll(a.Path(n)) })

		// Now all of them are conflicts, and are told to people.
		c.Partition([]int{0}, []int{1})
		for _, n := range fixture.HostileNames {
			write(t, a.Path("-into\n", n), "on a: "+n)
			write(t, b.Path("-into\n", n), "on b: "+n)
		}
		c.Until("two sides", wait, func() string {
			for _, n := range c.Nodes {
				if s := n.TreeStatus(); s.Queue > 0 || s.Busy > 0 {
					return "not looked at yet"
				}
			}
			return ""
		})
		c.Heal()
		c.WaitConnected(60 * time.Second)
		c.WaitIdentical(60 * time.Second)
		conflicts := 0
		for _, n := range c.Nodes {
			conflicts += n.TreeStatus().Conflicts
			for _, args := range [][]string{{"status"}, {"status", "--json"}, {"conflicts", "list"}} {
				out, _ := n.Clsync(args...) // the exit status tells health
				plain(t, n.Name+": clsync "+strings.Join(args, " "), out)
			}
			plain(t, "the log of "+n.Name, n.Log())
		}
		if conflicts < len(fixture.HostileNames) {
			t.Errorf("%d conflicts kept, want %d at least", conflicts, len(fixture.HostileNames))
		}
	})
}

// plain fails the test if a terminal could take the text for more than text.
func plain(t *testing.T, what, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("%s is not UTF-8", what)
	}
	for i, r := range text {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == '\u202e' || r == '\u200b' {
			t.Errorf("%s has %q in it: %q", what, r, text[max(0, i-20):min(len(text), i+20)])
			return
		}
	}
}

// TestFlipper_I7 has a local user exchange a folder with a symlink to a folder
// outside, as fast as it goes, on the sender and on the receiver, while files are
// pushed through that path. Outside, nothing may be written, and nothing of it read.
func TestFlipper_I7(t *testing.T) {
	backends(t, func(t *testing.T, monitor string) {
		const files, secret = 20, "secret of the victim"
		c := connected(t, cluster.Options{Nodes: 2, Monitor: monitor})
		a := c.Nodes[0]
		must(t, os.MkdirAll(a.Path("d/sub"), 0o755))
		for i := range files {
			write(t, a.Path("d", name(i)), "harmless\n")
			write(t, a.Path("d/sub", name(i)), "harmless\n")
		}
		c.WaitIdentical(wait)
		before := map[string]string{}
		for _, n := range c.Nodes {
			victim := filepath.Join(n.Dir, "victim")
			must(t, os.MkdirAll(filepath.Join(victim, "sub"), 0o755))
			for i := range files {
				write(t, filepath.Join(victim, name(i)), secret)
				write(t, filepath.Join(victim, "sub", name(i)), secret)
			}
			must(t, os.Symlink(victim, n.Beside()+"/flip"))
			before[n.Name] = command(t, "find", victim, "-printf", `%p %y %m %U %G %s %T@ %C@\n`)
		}
		end := time.Now().Add(5 * time.Second)
		var g errgroup.Group
		flips := make([]int, len(c.Nodes))
		opened := make(chan struct{}) // closed when all have the real folder open
		for k, n := range c.Nodes {
			g.Go(func() error { // beside and d change places
				<-opened
				for ; time.Now().Before(end) || flips[k]%2 == 1; flips[k]++ {
					if err := unix.Renameat2(unix.AT_FDCWD, n.Beside()+"/flip", unix.AT_FDCWD, n.Path("d"), unix.RENAME_EXCHANGE); err != nil && !errors.Is(err, unix.ENOENT) {
						return err
					}
				}
				return nil
			})
			// The other writes by descriptor, so that it never follows the symlink itself.
			dir, err := os.OpenRoot(n.Path("d"))
			must(t, err)
			g.Go(func() error {
				defer dir.Close()
				<-opened
				for i := 0; time.Now().Before(end); i++ {
					// The folder may have been replaced by a peer's; then it is not pushed.
					_ = dir.WriteFile(name(i%files), fmt.Appendf(nil, "changed %d on %s\n", i, n.Name), 0o644)
					_ = dir.WriteFile("sub/"+name(i%files), fmt.Appendf(nil, "changed %d on %s\n", i, n.Name), 0o644)
					time.Sleep(5 * time.Millisecond) // the pace of the writer
				}
				return nil
			})
		}
		close(opened)
		must(t, g.Wait())
		t.Logf("flips: %v", flips)
		if flips[0] < 10_000 || flips[1] < 10_000 {
			t.Errorf("too few to show anything: %v", flips)
		}
		c.WaitIdentical(60 * time.Second)
		for _, n := range c.Nodes {
			victim := filepath.Join(n.Dir, "victim")
			if after := command(t, "find", victim, "-printf", `%p %y %m %U %G %s %T@ %C@\n`); after != before[n.Name] {
				t.Errorf("%s: the victim has changed:\n%s\nwas\n%s", n.Name, after, before[n.Name])
			}
			for i := range files {
				if read(t, filepath.Join(victim, name(i))) != secret || read(t, filepath.Join(victim, "sub", name(i))) != secret {
					t.Errorf("%s: the victim's content has changed", n.Name)
				}
			}
			// No tree, staging or store may hold the secret.
			out, err := exec.Command("grep", "-rlF", "--devices=skip", secret, n.Tree()).CombinedOutput()
			if err == nil || len(out) > 0 {
				t.Errorf("%s: the victim's secret was read: %s", n.Name, out)
			}
		}
	})
}
