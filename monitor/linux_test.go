//go:build linux

package monitor

import (
	"os"
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

const limitedRoot = "CLSYNC_TEST_LIMITED_ROOT"

func watchLimited() int { return 0 }
