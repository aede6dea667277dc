package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/node/control"
)

// maxText is the size up to which contents are compared line by line.
const maxText = 1 << 20

func conflictsDiff(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "diff ID",
		Short: "Show how a kept state differs from what stands at its path now",
		Long: "Show how a kept state differs from what stands at its path now: metadata, and for\n" +
			"small text files the lines. Exits with 0 if they are the same, 1 if they differ.",
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: a.withConflict(func(c *cobra.Command, client *control.Client, k control.Conflict) error {
			s, err := client.Status(c.Context())
			if err != nil {
				return unreachable(err)
			}
			for _, t := range s.Trees {
				if t.Name == k.Tree {
					return diff(c.Context(), c.OutOrStdout(), t, k)
				}
			}
			return fmt.Errorf("tree %s is not on this node any more", k.Tree)
		}),
	}
}

// diff compares what is kept with what is there. Nothing is opened through a
// symlink: the tree belongs to its users.
func diff(ctx context.Context, out io.Writer, t control.Tree, k control.Conflict) (err error) {
	root, err := control.Unescape(t.Path)
	if err != nil {
		return err
	}
	path, err := k.RawPath()
	if err != nil {
		return err
	}
	object, err := k.ObjectPath()
	if err != nil {
		return err
	}
	kept, err := grab(filepath.Dir(object), filepath.Base(object))
	if err != nil {
		return fmt.Errorf("look at what is kept: %w", err)
	}
	defer func() { err = errors.Join(err, kept.Close()) }()
	live, err := grab(root, path)
	if errors.Is(err, os.ErrNotExist) {
		_, err = fmt.Fprintf(out, "%s: kept; nothing stands at its path now\n", k.Path)
		return errors.Join(err, errNo)
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", k.Path, err)
	}
	defer func() { err = errors.Join(err, live.Close()) }()
	return compare(ctx, out, k.Path, kept, live)
}

// grab opens a path beneath a folder, for looking only.
func grab(dir, path string) (*os.File, error) {
	d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	fd, err := unix.Openat2(d, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if cerr := unix.Close(d); err == nil && cerr != nil {
		return nil, errors.Join(cerr, unix.Close(fd))
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func compare(ctx context.Context, out io.Writer, name string, kept, live *os.File) error {
	a, err := factsOf(kept)
	if err != nil {
		return err
	}
	b, err := factsOf(live)
	if err != nil {
		return err
	}
	var text strings.Builder
	for i, f := range a.rows {
		if g := b.rows[i]; f != g {
			fmt.Fprintf(&text, "%-9s kept %s, now %s\n", f[0], f[1], g[1])
		}
	}
	if regular(a) && regular(b) {
		lines, err := contents(ctx, kept, live, a.st.Size, b.st.Size)
		if err != nil {
			return err
		}
		text.WriteString(lines)
	}
	if text.Len() == 0 {
		_, err := fmt.Fprintf(out, "%s: the same\n", name)
		return err
	}
	_, err = fmt.Fprintf(out, "%s:\n%s", name, text.String())
	return errors.Join(err, errNo)
}

// facts are what a path shows, in rows to compare.
type facts struct {
	st   unix.Stat_t
	rows [][2]string
}

func regular(f facts) bool { return f.st.Mode&unix.S_IFMT == unix.S_IFREG }

func factsOf(f *os.File) (out facts, err error) {
	if err := unix.Fstatat(int(f.Fd()), "", &out.st, unix.AT_EMPTY_PATH); err != nil {
		return out, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	row := func(name, format string, args ...any) {
		out.rows = append(out.rows, [2]string{name, fmt.Sprintf(format, args...)})
	}
	st := &out.st
	row("type", "%s", typeName(st.Mode))
	row("mode", "%04o", st.Mode&0o7777)
	row("owner", "%d:%d", st.Uid, st.Gid)
	size := st.Size
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		size = 0 // the file system's own affair
	}
	row("size", "%d", size)
	row("modified", "%s", time.Unix(st.Mtim.Unix()).Format(time.RFC3339Nano))
	row("device", "%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	target := "-"
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(f.Fd()), "", buf)
		if err != nil {
			return out, &os.PathError{Op: "readlink", Path: f.Name(), Err: err}
		}
		target = control.Escape(string(buf[:n]))
	}
	row("target", "%s", target)
	attrs, err := attributes(f)
	row("xattrs", "%s", attrs)
	return out, err
}

// attributes are all extended attributes, ACLs among them, on one line.
func attributes(f *os.File) (string, error) {
	name := fmt.Sprintf("/proc/self/fd/%d", f.Fd()) // leads to f itself, also if that is a symlink
	list, value := make([]byte, 64<<10), make([]byte, 64<<10)
	n, err := unix.Listxattr(name, list)
	if errors.Is(err, unix.ENOTSUP) {
		return "-", nil
	}
	if err != nil {
		return "", &os.PathError{Op: "list attributes", Path: f.Name(), Err: err}
	}
	var all []string
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if attr == "" {
			continue
		}
		n, err := unix.Getxattr(name, attr, value)
		if err != nil {
			return "", &os.PathError{Op: "read attribute " + attr, Path: f.Name(), Err: err}
		}
		all = append(all, fmt.Sprintf("%s=%q", attr, value[:n]))
	}
	slices.Sort(all)
	return or(strings.Join(all, " "), "-"), nil
}

func typeName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "folder"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFCHR:
		return "char device"
	}
	return "block device"
}

// contents has diff(1) compare two files, which it is given open: it sees no name.
func contents(ctx context.Context, kept, live *os.File, keptSize, liveSize int64) (string, error) {
	if max(keptSize, liveSize) > maxText {
		return "contents  not compared: more than 1 MiB\n", nil
	}
	a, err := reopen(kept)
	if err != nil {
		return "", err
	}
	b, err := reopen(live)
	if err != nil {
		return "", errors.Join(err, a.Close())
	}
	cmd := exec.CommandContext(ctx, "diff", "-u", "--label", "kept", "--label", "now", "/dev/fd/3", "/dev/fd/4")
	cmd.ExtraFiles = []*os.File{a, b}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	err = errors.Join(err, a.Close(), b.Close())
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "", nil
	case errors.As(err, &exit) && exit.ExitCode() == 1:
		return safeLines(string(text)), nil
	}
	return "", fmt.Errorf("run diff: %w: %s", err, strings.TrimSpace(stderr.String()))
}

// reopen opens for reading what was opened for looking; it is a regular file.
func reopen(f *os.File) (*os.File, error) {
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// safeLines escapes what could steer a terminal; tabs and ends of lines stay.
func safeLines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line, end := strings.CutSuffix(line, "\n")
		for i, cell := range strings.Split(line, "\t") {
			if i > 0 {
				b.WriteByte('\t')
			}
			b.WriteString(terminal(cell))
		}
		if end {
			b.WriteByte('\n')
		}
	}
	return b.String()
}
