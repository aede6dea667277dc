//go:build linux

package monitor

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// fileSystem returns an empty folder, on a file system of its own if we may.
func fileSystem(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if os.Geteuid() == 0 {
		mountAt(t, "tmpfs", "tmpfs", dir, 0, "size=64m")
	}
	return dir
}

func mountAt(t *testing.T, source, kind, dir string, flags uintptr, options string) {
	t.Helper()
	must(t, unix.Mount(source, dir, kind, flags, options))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			t.Error(err)
		}
	})
}

// image makes a file system of that kind in a file, and returns it.
func image(t *testing.T, kind string) string {
	t.Helper()
	needRoot(t, "to mount a loop device")
	mkfs, err := exec.LookPath("mkfs." + kind)
	if err != nil {
		t.Skip("needs mkfs." + kind)
	}
	img := filepath.Join(t.TempDir(), "image")
	put(t, img, "")
	must(t, os.Truncate(img, 320<<20)) // sparse; xfs wants 300 MB
	if out, err := exec.Command(mkfs, "-q", img).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return img
}

// loop mounts an image at dir.
func loop(t *testing.T, img, dir, options string) {
	t.Helper()
	if out, err := exec.Command("mount", "-o", "loop"+options, img, dir).CombinedOutput(); err != nil {
		t.Skipf("needs loop devices: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && err != unix.EINVAL {
			t.Error(err)
		}
	})
}

// sh runs a program that is not us.
func sh(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}
