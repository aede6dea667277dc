package rsync

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// JailMode says whether the receiving rsync is locked up: it alone parses what a
// peer sends.
type JailMode uint8

const (
	// Auto is a jail if we seem to be allowed one; ResolveJail finds out.
	Auto JailMode = iota
	// Off is none.
	Off
	// Require is a jail, or an error.
	Require
)

// In the jail there is the rsync program and the system's libraries, to be read;
// the live tree, to be read, if the lane needs a basis; the staging folder; and
// nothing else, no /proc, no network, no other process. What it lacks on purpose:
// CAP_SYS_ADMIN, and so trusted.* attributes. rsync reports them with exit code 23,
// and whoever applies the batch sets them from the record.

// jailFailed is JailMain's exit code for "rsync was not started".
const jailFailed = 126

// wanted tells whether to try. Only root is locked up: an rsync of another user
// has no capability to lose, and that user's rights bound it.
func (m JailMode) wanted() (bool, error) {
	if m == Off {
		return false, nil
	}
	err := privileged()
	if err != nil && m == Require {
		return false, fmt.Errorf("%w: %w", ErrJail, err)
	}
	return err == nil, nil
}

func privileged() error {
	if os.Geteuid() != 0 {
		return errors.New("not root")
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	for _, c := range []int{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP} {
		if data[c/32].Effective&(1<<(c%32)) == 0 {
			return errors.New("no CAP_SYS_ADMIN or CAP_SETPCAP")
		}
	}
	return nil
}

// ResolveJail turns Auto into Require or Off by trying, once, at the daemon's
// start: a container may allow a part of what a jail needs. folder is any folder
// that exists, on a file system with a tree.
func ResolveJail(ctx context.Context, mode JailMode, binary string, helper []string, folder string, log *slog.Logger) (JailMode, error) {
	if mode == Off {
		return Off, nil
	}
	err := tryJail(ctx, binary, helper, folder)
	switch {
	case err == nil:
		return Require, nil
	case mode == Require || ctx.Err() != nil:
		return Off, fmt.Errorf("%w: %w", ErrJail, err)
	}
	logger(log).Warn("no jail for rsync", "err", err)
	return Off, nil
}

func tryJail(ctx context.Context, binary string, helper []string, folder string) error {
	if err := privileged(); err != nil {
		return err
	}
	f, err := openBeneath(unix.AT_FDCWD, folder, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	spec := ReceiveSpec{Binary: binary, Helper: helper, Lane: Small, StagingDir: folder, TreeRoot: folder}
	cmd, files, err := jailCommandFor(spec, f, f, []string{"--version"})
	defer closeAll(files)
	if err != nil {
		return err
	}
	cmd.Env = environment()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	p, err := launch(cmd)
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.end()
		return context.Cause(ctx)
	}
	if p.code() != 0 {
		return fmt.Errorf("ended with %d%s", p.code(), lastLine(p.tail.String()))
	}
	return nil
}

// A jailPlan is what JailMain is told. Paths are bytes, hence no strings.
type jailPlan struct {
	Mounts []jailMount
	Links  []jailLink
	Dirs   [][]byte // that must be there, empty
	Work   []byte   // working directory
	Binary []byte
	Args   [][]byte
	Limits Limits
}

// A jailMount is a detached mount, made by the daemon and inherited as a
// descriptor. The daemon made it from a descriptor, so no name is looked up twice.
type jailMount struct {
	FD     int
	Target []byte
	File   bool
}

type jailLink struct{ Name, Target []byte }

// libraries are where systems keep what a program needs in order to start.
var libraries = []string{"/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/etc/ld.so.cache"}

func jailCommand(spec ReceiveSpec, tree, staging *os.File) (*exec.Cmd, []*os.File, error) {
	return jailCommandFor(spec, tree, staging, ServerArgs(spec))
}

// jailCommandFor prepares the mounts and the command that puts them together. The
// files returned are the mounts, to be closed after the start, also on an error.
func jailCommandFor(spec ReceiveSpec, tree, staging *os.File, args []string) (cmd *exec.Cmd, files []*os.File, err error) {
	if len(spec.Helper) == 0 {
		return nil, nil, errors.New("no helper")
	}
	plan := jailPlan{Work: []byte(spec.StagingDir), Binary: []byte(spec.Binary), Limits: spec.Limits}
	for _, a := range args {
		plan.Args = append(plan.Args, []byte(a))
	}
	mount := func(at int, path, target string, file bool, attrs uint64) error {
		f, err := detach(at, path, attrs)
		if err != nil {
			return fmt.Errorf("clone mount of %s: %w", target, err)
		}
		files = append(files, f)
		plan.Mounts = append(plan.Mounts, jailMount{FD: 2 + len(files), Target: []byte(target), File: file})
		return nil
	}

	const ro = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	for _, lib := range libraries {
		switch fi, err := os.Lstat(lib); {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return nil, files, err
		case fi.Mode()&os.ModeSymlink != 0:
			to, err := os.Readlink(lib)
			if err != nil {
				return nil, files, err
			}
			plan.Links = append(plan.Links, jailLink{[]byte(lib), []byte(to)})
		default:
			if err := mount(unix.AT_FDCWD, lib, lib, !fi.IsDir(), ro); err != nil {
				return nil, files, err
			}
		}
	}
	if err := mount(unix.AT_FDCWD, spec.Binary, spec.Binary, true, ro); err != nil {
		return nil, files, err
	}
	if spec.Lane == LargeCompare {
		if err := mount(int(tree.Fd()), "", spec.TreeRoot, false, ro|unix.MOUNT_ATTR_NOEXEC); err != nil {
			return nil, files, err
		}
	} else {
		plan.Dirs = append(plan.Dirs, []byte(spec.TreeRoot)) // for --confine-root
	}
	const rw = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	if err := mount(int(staging.Fd()), "", spec.StagingDir, false, rw); err != nil {
		return nil, files, err
	}

	text, err := json.Marshal(plan)
	if err != nil {
		return nil, files, err
	}
	argv := append(append([]string(nil), spec.Helper...), string(text))
	cmd = exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
	}
	return cmd, files, nil
}

// detach clones the mount that path is on, from path downwards and without what is
// mounted beneath, as one that is nowhere.
func detach(at int, path string, attrs uint64) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	fd, err := unix.OpenTree(at, path, flags)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), filepath.Base(path))
	// Private, or a mount made beneath in the host would show up in the jail.
	attr := unix.MountAttr{Attr_set: attrs, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
