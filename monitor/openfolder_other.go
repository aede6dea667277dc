//go:build !linux

package monitor

import (
	"fmt"
	"os"
	"syscall"
)

// openFolder opens the folder at rel, beneath the root.
func openFolder(root, rel string) (*os.File, folderID, error) {
	at, err := os.OpenRoot(root)
	if err != nil {
		return nil, folderID{}, fmt.Errorf("open root: %w", err)
	}
	defer at.Close()
	if rel == "" {
		rel = "."
	}
	fi, err := at.Lstat(rel)
	if err != nil {
		return nil, folderID{}, fmt.Errorf("open folder: %w", err)
	}
	if !fi.IsDir() {
		return nil, folderID{}, syscall.ENOTDIR
	}
	dir, err := at.Open(rel)
	if err != nil {
		return nil, folderID{}, fmt.Errorf("open folder: %w", err)
	}
	if fi, err = dir.Stat(); err != nil || !fi.IsDir() {
		dir.Close()
		return nil, folderID{}, syscall.ENOTDIR
	}
	return dir, idOf(fi), nil
}
