package rsync

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kept are the capabilities that giving files their owners, modes and attributes
// takes; mknod and setfcap for what is only named so.
var kept = []int{
	unix.CAP_CHOWN, unix.CAP_FOWNER, unix.CAP_FSETID,
	unix.CAP_DAC_OVERRIDE, unix.CAP_MKNOD, unix.CAP_SETFCAP,
}

// JailMain runs in fresh namespaces, builds a root of the mounts it inherited,
// drops what rsync does not need and becomes rsync. It returns only if it fails.
// It is the first process of its namespace: when it dies, all in it die.
func JailMain(args []string) int {
	runtime.LockOSThread() // capabilities are a thread's, and this one goes on as rsync
	fmt.Fprintf(os.Stderr, "%v\n", jail(args))
	return jailFailed
}

// jail does not return unless it fails.
func jail(args []string) error {
	var plan jailPlan
	if len(args) != 1 {
		return errors.New("not started by clsync")
	}
	if err := json.Unmarshal([]byte(args[0]), &plan); err != nil {
		return fmt.Errorf("read plan: %w", err)
	}
	if os.Getpid() != 1 {
		return errors.New("not in a namespace of its own")
	}
	if err := plan.enter(); err != nil {
		return err
	}
	// Every descriptor but the three: the mounts would be ways around the root.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	argv := []string{"rsync"}
	for _, a := range plan.Args {
		argv = append(argv, string(a))
	}
	if err := plan.Limits.set(0); err != nil {
		return err
	}
	return fmt.Errorf("run rsync: %w", unix.Exec(string(plan.Binary), argv, os.Environ()))
}

// enter makes the new root and leaves the old one behind.
func (p jailPlan) enter() error {
	// Nothing done here may show in the host, nor the other way round.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	root, err := emptyRoot()
	if err != nil {
		return fmt.Errorf("make root: %w", err)
	}
	defer unix.Close(root)
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	if err := unix.Fchdir(root); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil { // the old root lies over the new
		return fmt.Errorf("leave old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if err := p.furnish(); err != nil {
		return err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(root, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("make root read-only: %w", err)
	}
	if err := unix.Chdir(string(p.Work)); err != nil {
		return fmt.Errorf("enter staging: %w", err)
	}
	return nil
}

func emptyRoot() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	for _, kv := range [][2]string{{"mode", "0755"}, {"size", "64k"}, {"nr_inodes", "256"}} {
		if err := unix.FsconfigSetString(fs, kv[0], kv[1]); err != nil {
			return -1, err
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
}

// furnish puts links and mounts where they belong, in the plan's order: staging
// comes after the tree that it lies in.
func (p jailPlan) furnish() error {
	for _, l := range p.Links {
		if err := os.MkdirAll(filepath.Dir(string(l.Name)), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(string(l.Target), string(l.Name)); err != nil {
			return err
		}
	}
	for _, d := range p.Dirs {
		if err := os.MkdirAll(string(d), 0o755); err != nil {
			return err
		}
	}
	for _, m := range p.Mounts {
		if err := m.attach(); err != nil {
			return fmt.Errorf("mount %q: %w", m.Target, err)
		}
	}
	return nil
}

func (m jailMount) attach() error {
	target := string(m.Target)
	at, err := mountPoint(target, m.File)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	return unix.MoveMount(m.FD, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// mountPoint opens the place, making it where it is missing. Inside the tree's
// mount it is there already; no link a tree's user planted is followed on the way.
func mountPoint(target string, file bool) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, target, &how)
	if err != unix.ENOENT {
		return fd, err
	}
	dir := target
	if file {
		dir = target[:strings.LastIndexByte(target, '/')+1]
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return -1, err
	}
	if file {
		if err := os.WriteFile(target, nil, 0o644); err != nil {
			return -1, err
		}
	}
	return unix.Openat2(unix.AT_FDCWD, target, &how)
}

func dropCapabilities() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	var keep uint64
	for _, c := range kept {
		keep |= 1 << c
	}
	for c := range 64 {
		if keep&(1<<c) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err == unix.EINVAL && c > 0 {
			break // the kernel knows no more
		} else if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(keep), Permitted: uint32(keep)},
		{Effective: uint32(keep >> 32), Permitted: uint32(keep >> 32)},
	}
	_, _, errno := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 {
		return fmt.Errorf("set capabilities: %w", errno)
	}
	return nil
}
