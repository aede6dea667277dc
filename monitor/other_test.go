//go:build !linux

package monitor

import "testing"

// fileSystem returns an empty folder.
func fileSystem(t *testing.T) string {
	t.Helper()
	return t.TempDir()
}
