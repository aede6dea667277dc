//go:build linux

package monitor

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

func TestEveryKindOfChange(t *testing.T) {
	const hostile = "a\xff\n\"\\ (deleted)"
	type paths = []signature.Path
	tests := []struct {
		name   string
		before func(string) error
		change func(string) error
		hints  paths
		deep   paths
	}{
		{"create", nil, func(d string) error { return os.WriteFile(d+"/f", nil, 0o644) }, paths{"d/f", "d"}, nil},
		{"write", file("f"), func(d string) error { return os.WriteFile(d+"/f", []byte("x"), 0o644) }, paths{"d/f"}, nil},
		{"truncate", file("f"), func(d string) error { return os.Truncate(d+"/f", 9) }, paths{"d/f"}, nil},
		{"chmod", file("f"), func(d string) error { return os.Chmod(d+"/f", 0o600) }, paths{"d/f"}, nil},
		{"chmod folder", nil, func(d string) error { return os.Chmod(d, 0o700) }, paths{"d"}, nil},
		{"chmod root", nil, func(d string) error { return os.Chmod(filepath.Dir(d), 0o700) }, paths{""}, nil},
		{"times", file("f"), func(d string) error { return os.Chtimes(d+"/f", time.Time{}, time.Unix(1, 0)) }, paths{"d/f"}, nil},
		{"owner", file("f"), func(d string) error { return os.Lchown(d+"/f", os.Getuid(), os.Getgid()) }, paths{"d/f"}, nil},
		{"xattr", file("f"), func(d string) error { return unix.Setxattr(d+"/f", "user.a", []byte("b"), 0) }, paths{"d/f"}, nil},
		{"symlink", nil, func(d string) error { return os.Symlink("/etc", d+"/l") }, paths{"d/l", "d"}, nil},
		{"hard link", file("f"), func(d string) error { return os.Link(d+"/f", d+"/g") }, paths{"d/g", "d"}, nil},
		{"fifo", nil, func(d string) error { return syscall.Mkfifo(d+"/p", 0o600) }, paths{"d/p"}, nil},
		{"delete", file("f"), func(d string) error { return os.Remove(d + "/f") }, paths{"d/f", "d"}, nil},
		{"rename", file("f"), func(d string) error { return os.Rename(d+"/f", d+"/g") }, paths{"d/f", "d/g", "d"}, nil},
		{"rename onto", both(file("f"), file("g")), func(d string) error { return os.Rename(d+"/f", d+"/g") }, paths{"d/f", "d/g"}, nil},
		{"hostile name", nil, func(d string) error { return os.WriteFile(d+"/"+hostile, nil, 0o644) }, paths{"d/" + hostile}, nil},
		{"in a hostile folder", below(hostile), func(d string) error { return os.WriteFile(d+"/"+hostile+"/f", nil, 0o644) }, paths{"d/" + hostile + "/f"}, nil},
		{"mkdir", nil, func(d string) error { return os.Mkdir(d+"/k", 0o755) }, paths{"d"}, paths{"d/k"}},
		{"dots", nil, func(d string) error { return os.MkdirAll(d+"/.../..a", 0o755) }, nil, paths{"d/...", "d/.../..a"}},
		{"rmdir", below("k"), func(d string) error { return os.Remove(d + "/k") }, paths{"d"}, paths{"d/k"}},
		{"rm -r", below("k/l/m"), func(d string) error { return os.RemoveAll(d + "/k") }, nil, paths{"d/k"}},
		{"rename folder", below("k/l"), func(d string) error { return os.Rename(d+"/k", d+"/n") }, paths{"d"}, paths{"d/k", "d/n"}},
		{"folder onto folder", both(below("k/l"), below("n")), func(d string) error { return unix.Rename(d+"/k", d+"/n") }, nil, paths{"d/k", "d/n"}},
		{"exchange folders", both(below("k/l"), below("n/o")), func(d string) error { return exchange(d+"/k", d+"/n") }, nil, paths{"d/k", "d/n"}},
		{"exchange folder and file", both(below("k/l"), file("n")), func(d string) error { return exchange(d+"/k", d+"/n") }, paths{"d/k", "d/n"}, nil},
		{"file for folder", below("k/l"), func(d string) error {
			if err := os.RemoveAll(d + "/k"); err != nil {
				return err
			}
			return os.WriteFile(d+"/k", nil, 0o644)
		}, nil, paths{"d/k"}},
	}
	backends(t, func(t *testing.T, cfg Config) {
		for n, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				cfg := cfg
				cfg.Root = mkdir(t, cfg.Root, fmt.Sprint(n))
				d := mkdir(t, cfg.Root, "d")
				if tt.before != nil {
					must(t, tt.before(d))
				}
				r := start(t, cfg)
				if st := r.m.Stats(); st.Watches == 0 || st.Limited {
					t.Fatalf("not armed: %+v", st)
				}
				must(t, tt.change(d))
				for _, p := range tt.hints {
					r.awaitHint(p)
				}
				for _, p := range tt.deep {
					r.awaitDeep(p)
				}
				// What was there and what is there now is watched from here on.
				r.fence()
				r.forget()
				touchAll(t, d)
				r.await("a touch of everything", func() bool {
					for _, p := range r.uncovered() {
						if p.In("d") {
							return false
						}
					}
					return true
				})
			})
		}
	})
}

func file(name string) func(string) error {
	return func(d string) error { return os.WriteFile(d+"/"+name, []byte("old"), 0o644) }
}

func below(name string) func(string) error {
	return func(d string) error { return os.MkdirAll(d+"/"+name, 0o755) }
}

func both(a, b func(string) error) func(string) error {
	return func(d string) error {
		if err := a(d); err != nil {
			return err
		}
		return b(d)
	}
}

func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// touchAll changes an attribute of everything beneath dir.
func touchAll(t *testing.T, dir string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		return os.Lchown(path, os.Getuid(), os.Getgid())
	}))
}

// mkdir -p is faster than any watcher: all that was made before a watch was set
// has to be found by the list.
func TestBurstOfNestedFolders(t *testing.T) {
	backends(t, func(t *testing.T, cfg Config) {
		r := start(t, cfg)
		for n := range 400 {
			d := mkdir(t, cfg.Root, fmt.Sprintf("%d/b/c/d/e", n))
			put(t, d+"/f", "x")
		}
		r.await("all", func() bool { return len(r.uncovered()) == 0 })
		r.fence()
		r.forget()
		touchAll(t, cfg.Root)
		r.await("all, later", func() bool { return len(r.uncovered()) == 0 })
	})
}

// A hint for a file that is made in a folder while the folder is renamed again and
// again comes under one of its names, and a deep one for where it is in the end.
func TestRenamedFolder(t *testing.T) {
	backends(t, func(t *testing.T, cfg Config) {
		mkdir(t, cfg.Root, "d0/in/ner")
		r := start(t, cfg)
		for n := range 100 {
			put(t, filepath.Join(cfg.Root, fmt.Sprintf("d%d/in/ner/f%d", n, n)), "x")
			must(t, os.Rename(filepath.Join(cfg.Root, fmt.Sprintf("d%d", n)), filepath.Join(cfg.Root, fmt.Sprintf("d%d", n+1))))
		}
		d := filepath.Join(cfg.Root, "d100/in/ner")
		r.await("all", func() bool { return len(r.uncovered("d0", "d50", "d99")) == 0 })
		r.fence()
		r.forget()
		put(t, d+"/late", "x")
		r.awaitHint("d100/in/ner/late")
		must(t, os.Mkdir(d+"/latedir", 0o755))
		r.awaitDeep("d100/in/ner/latedir")
	})
}

// Two folders swap names through a third, with folders of equal names in both.
func TestSwappedFolders(t *testing.T) {
	backends(t, func(t *testing.T, cfg Config) {
		for _, p := range []string{"a/x/1", "b/x/2"} {
			put(t, filepath.Join(mkdir(t, cfg.Root, p), "f"), "x")
		}
		r := start(t, cfg)
		at := func(name string) string { return filepath.Join(cfg.Root, name) }
		for range 20 {
			must(t, os.Rename(at("a"), at("c")))
			must(t, os.Rename(at("b"), at("a")))
			must(t, os.Rename(at("c"), at("b")))
		}
		r.await("all", func() bool { return len(r.uncovered("c")) == 0 })
		r.fence()
		r.forget()
		touchAll(t, cfg.Root)
		r.await("all, later", func() bool { return len(r.uncovered()) == 0 })
	})
}

// A folder put into another that was renamed in the same moment.
func TestMovedBetweenFolders(t *testing.T) {
	backends(t, func(t *testing.T, cfg Config) {
		mkdir(t, cfg.Root, "a/k/l")
		r := start(t, cfg)
		at := func(name string) string { return filepath.Join(cfg.Root, name) }
		must(t, os.Rename(at("a"), at("tmp")))
		must(t, os.Mkdir(at("a"), 0o755))
		must(t, os.Rename(at("tmp"), at("a/b")))
		must(t, os.Rename(at("a/b/k"), at("k")))
		r.await("all", func() bool { return len(r.uncovered("tmp", "a/k")) == 0 })
		r.fence()
		r.forget()
		touchAll(t, cfg.Root)
		put(t, at("k/l/f"), "x")
		r.await("all, later", func() bool { return len(r.uncovered()) == 0 })
	})
}

func TestMovedInAndOut(t *testing.T) {
	backends(t, func(t *testing.T, cfg Config) {
		outside := mkdir(t, filepath.Dir(cfg.Root), "outside")
		put(t, filepath.Join(mkdir(t, outside, "o/p/q"), "f"), "x")
		r := start(t, cfg)
		put(t, outside+"/o/p/q/f", "y")
		must(t, os.Rename(outside+"/o", cfg.Root+"/o"))
		r.await("moved in", func() bool { return len(r.uncovered()) == 0 })
		r.awaitDeep("o")
		r.fence()
		r.forget()
		put(t, cfg.Root+"/o/p/q/f", "z")
		r.awaitHint("o/p/q/f")

		must(t, os.Rename(cfg.Root+"/o", outside+"/o"))
		r.awaitDeep("o")
		r.fence()
		r.forget()
		put(t, outside+"/o/p/q/f", "a")
		put(t, outside+"/g", "a")
		r.fence()
		if r.covers("o/p/q/f") || r.covers("g") {
			t.Error("a change outside was hinted")
		}
	})
}

// Paths beyond what a path may be are answered above.
func TestTooLong(t *testing.T) {
	backends(t, func(t *testing.T, cfg Config) {
		cfg.PollUnwatched = 50 * time.Millisecond
		r := start(t, cfg)
		name := "n123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
		fd, err := unix.Open(cfg.Root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		for range 45 {
			must(t, unix.Mkdirat(fd, name, 0o755))
			next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			must(t, err)
			must(t, unix.Close(fd))
			fd = next
		}
		defer unix.Close(fd)
		r.fence()
		r.forget()
		last, err := unix.Openat(fd, "last", unix.O_WRONLY|unix.O_CREAT, 0o644)
		must(t, err)
		must(t, unix.Close(last))
		r.await("a deep hint far down", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			for p := range r.deep {
				if level(p) > 30 && len(p) <= signature.MaxPath && p.Base() == name {
					return true
				}
			}
			return false
		})
	})
}
