package cluster

import (
	"fmt"
	"os"
	"path/filepath"
)

// FS is the kind of file system that a tree is on.
type FS string

const (
	Tmpfs FS = "tmpfs"
	Ext4  FS = "ext4" // in a loop image, as xfs
	XFS   FS = "xfs"
)

// A Disk is a file system of a node's own.
type Disk struct {
	kind  FS
	image string // empty: tmpfs
	path  string // where it is mounted
	size  int64
}

// NewDisk makes a file system of that size and mounts it at path. What is on a
// tmpfs is gone when it is unmounted.
func NewDisk(kind FS, path string, size int64) (*Disk, error) {
	d := &Disk{kind: kind, path: path, size: size}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, err
	}
	if kind != Tmpfs {
		d.image = filepath.Join(filepath.Dir(path), "disk.img")
		if err := os.WriteFile(d.image, nil, 0o600); err != nil {
			return nil, err
		}
		if err := os.Truncate(d.image, size); err != nil {
			return nil, err
		}
		if err := run("", "mkfs."+string(kind), "-q", d.image); err != nil {
			return nil, err
		}
	}
	if err := d.Mount(); err != nil {
		return nil, err
	}
	// ext4 comes with a folder of its own, whose time is that of the mkfs.
	if err := os.Remove(filepath.Join(path, "lost+found")); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return d, nil
}

// Mount mounts the disk. The loop device goes by itself at the unmount.
func (d *Disk) Mount() error {
	if d.image == "" {
		return run("", "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d,mode=755", d.size), "tmpfs", d.path)
	}
	opts := "loop"
	if d.kind == XFS {
		opts += ",nouuid"
	}
	return run("", "mount", "-t", string(d.kind), "-o", opts, d.image, d.path)
}

// Unmount takes the disk away, lazily if somebody is on it: it is gone by name.
func (d *Disk) Unmount() error {
	if err := run("", "umount", d.path); err == nil {
		return nil
	}
	return run("", "umount", "--lazy", d.path)
}

// tools is what NewDisk needs beside mount.
func (k FS) tools() []string {
	switch k {
	case Ext4, XFS:
		return []string{"mkfs." + string(k)}
	}
	return nil
}
