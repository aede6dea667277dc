package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A step is one change on one node, and how the others are seen to have it.
type step struct {
	node int
	what string
	do   func(tree string) error
	has  func(tree string) error // nil: it is there
}

func (d *demo) show() error {
	large := bytes.Repeat([]byte("fifty megabytes "), 50<<20/16)
	at := func(tree, name string) string { return filepath.Join(tree, name) }
	steps := []step{
		{0, "a file is created", func(t string) error { return os.WriteFile(at(t, "hello.txt"), []byte("hello\n"), 0o644) }, content("hello.txt", "hello\n")},
		{1, "and edited", func(t string) error { return os.WriteFile(at(t, "hello.txt"), []byte("hello from b\n"), 0o644) }, content("hello.txt", "hello from b\n")},
		{2, "renamed", func(t string) error { return os.Rename(at(t, "hello.txt"), at(t, "greeting.txt")) },
			func(t string) error {
				return errors.Join(content("greeting.txt", "hello from b\n")(t), absent("hello.txt")(t))
			}},
		{0, "made read-only (chmod 0440)", func(t string) error { return os.Chmod(at(t, "greeting.txt"), 0o440) }, func(t string) error {
			st, err := os.Lstat(at(t, "greeting.txt"))
			if err == nil && st.Mode() != 0o440 {
				err = fmt.Errorf("mode is %v", st.Mode())
			}
			return err
		}},
		{1, "a symlink to it", func(t string) error { return os.Symlink("greeting.txt", at(t, "link")) }, func(t string) error {
			target, err := os.Readlink(at(t, "link"))
			if err == nil && target != "greeting.txt" {
				err = fmt.Errorf("target is %q", target)
			}
			return err
		}},
		{2, "a hard link to it", func(t string) error { return os.Link(at(t, "greeting.txt"), at(t, "same.txt")) }, func(t string) error {
			one, err := os.Lstat(at(t, "greeting.txt"))
			if err != nil {
				return err
			}
			two, err := os.Lstat(at(t, "same.txt"))
			if err == nil && !os.SameFile(one, two) {
				err = errors.New("two files")
			}
			return err
		}},
		{0, "a folder with 500 files", func(t string) error {
			err := os.Mkdir(at(t, "many"), 0o755)
			for i := range 500 {
				err = errors.Join(err, os.WriteFile(at(t, fmt.Sprintf("many/%03d", i)), fmt.Appendf(nil, "file %d\n", i), 0o644))
			}
			return err
		}, func(t string) error {
			for i := range 500 {
				if err := content(fmt.Sprintf("many/%03d", 499-i), fmt.Sprintf("file %d\n", 499-i))(t); err != nil {
					return err
				}
			}
			return nil
		}},
		{1, "that folder renamed", func(t string) error { return os.Rename(at(t, "many"), at(t, "renamed")) },
			func(t string) error {
				return errors.Join(content("renamed/499", "file 499\n")(t), content("renamed/000", "file 0\n")(t), absent("many")(t))
			}},
		{2, "a file of 50 MB", func(t string) error { return os.WriteFile(at(t, "large.bin"), large, 0o600) }, func(t string) error {
			b, err := os.ReadFile(at(t, "large.bin"))
			if err == nil && !bytes.Equal(b, large) {
				err = errors.New("another content")
			}
			return err
		}},
		{0, "one block of it changed", func(t string) error {
			f, err := os.OpenFile(at(t, "large.bin"), os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("CHANGED"), 25<<20)
			copy(large[25<<20:], "CHANGED")
			return errors.Join(err, f.Close())
		}, func(t string) error {
			b, err := os.ReadFile(at(t, "large.bin"))
			if err == nil && !bytes.Equal(b, large) {
				err = errors.New("another content")
			}
			return err
		}},
		{1, "a file deleted", func(t string) error { return os.Remove(at(t, "same.txt")) }, absent("same.txt")},
		{2, "a folder deleted", func(t string) error { return os.RemoveAll(at(t, "renamed")) }, absent("renamed")},
	}
	fmt.Printf("\n  %-34s %12s   %s\n", "change", "", "there after")
	for _, s := range steps {
		if err := d.step(s); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return d.conflict()
}

// step makes a change and waits until each of the others shows it.
func (d *demo) step(s step) error {
	from := d.nodes[s.node]
	if err := s.do(from.tree); err != nil {
		return err
	}
	begin := time.Now()
	waiting := []*node{}
	for _, n := range d.nodes {
		if n != from {
			waiting = append(waiting, n)
		}
	}
	took := map[string]string{}
	err := d.until("a change to arrive", func() error {
		var first error
		for _, n := range waiting {
			if took[n.name] != "" {
				continue
			}
			err := s.has(n.tree)
			if err == nil {
				took[n.name] = since(begin)
			} else if first == nil {
				first = fmt.Errorf("on %s: %w", n.name, err)
			}
		}
		return first
	})
	if err != nil {
		return err
	}
	fmt.Printf("  %-34s %12s  ", s.what, "on "+from.name)
	for _, n := range waiting {
		fmt.Printf(" %s %-9s", n.name, took[n.name])
	}
	fmt.Println()
	return nil
}

// conflict writes one file on two nodes at the same moment.
func (d *demo) conflict() error {
	a, c := d.nodes[0], d.nodes[2]
	begin := time.Now()
	for _, n := range []*node{a, c} {
		if err := os.WriteFile(filepath.Join(n.tree, "contested.txt"), []byte("as written on "+n.name+"\n"), 0o644); err != nil {
			return err
		}
	}
	var shown string
	err := d.until("the conflict to be decided", func() error {
		first, err := os.ReadFile(filepath.Join(a.tree, "contested.txt"))
		if err != nil {
			return err
		}
		kept := 0
		for _, n := range d.nodes {
			if err := content("contested.txt", string(first))(n.tree); err != nil {
				return err
			}
			s, err := d.status(n)
			if err != nil {
				return err
			}
			kept += s.Trees[0].Conflicts
		}
		if kept == 0 {
			return errors.New("no node has kept the other content")
		}
		shown = strings.TrimSpace(string(first))
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Printf("  %-34s %12s   the same everywhere after %s\n", "one file, two contents at once", "on a and c", since(begin))
	fmt.Printf("\nShown on all three: %q. The other one is kept:\n", shown)
	for _, n := range d.nodes {
		out, err := exec.CommandContext(d.ctx, d.binary, "conflicts", "list", "--config", n.config).Output()
		if err != nil {
			return fmt.Errorf("clsync conflicts list: %w", withStderr(err))
		}
		for line := range strings.Lines(string(out)) {
			fmt.Printf("  %s  %s", n.name, line)
		}
	}
	return nil
}

// epilogue says what can be tried now.
func (d *demo) epilogue() {
	a := d.nodes[0]
	fmt.Printf(`
The cluster is up. Work on any of these folders and look at the others:

  %s
  %s
  %s

  %s status --config %s
  %s conflicts list --config %s
  tail -f %s

^C ends it and removes everything.
`, a.tree, d.nodes[1].tree, d.nodes[2].tree, d.binary, a.config, d.binary, a.config, filepath.Join(a.dir, "log"))
}

func content(name, want string) func(string) error {
	return func(tree string) error {
		b, err := os.ReadFile(filepath.Join(tree, name))
		if err == nil && string(b) != want {
			err = fmt.Errorf("%s holds %q", name, b[:min(len(b), 40)])
		}
		return err
	}
}

func absent(name string) func(string) error {
	return func(tree string) error {
		_, err := os.Lstat(filepath.Join(tree, name))
		if err == nil {
			return fmt.Errorf("%s is still there", name)
		}
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
}

func since(t time.Time) string {
	d := time.Since(t)
	if d < 10*time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
