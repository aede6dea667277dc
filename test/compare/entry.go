package compare

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// An Entry is what one path shows.
type Entry struct {
	Path   string
	Type   uint32 // the S_IFMT bits
	Mode   uint32 // permission, setuid, setgid and sticky bits
	UID    uint32
	GID    uint32
	Size   int64 // files only
	MTime  int64 // nanoseconds since 1970
	Target string
	Rdev   uint64 // devices only
	Xattrs map[string]string
	Sum    [32]byte // SHA-256 of a file's content, where it was asked for
	Data   int64    // bytes of a file that are not in holes

	// Leader is the least name of those in the tree that are links of this file,
	// its own where there is no other.
	Leader string

	file fileID
}

type fileID struct{ dev, ino uint64 }

var typeNames = map[uint32]string{
	unix.S_IFREG: "file", unix.S_IFDIR: "folder", unix.S_IFLNK: "symlink", unix.S_IFIFO: "fifo",
	unix.S_IFSOCK: "socket", unix.S_IFCHR: "char device", unix.S_IFBLK: "block device",
}

func typeName(t uint32) string {
	if n, ok := typeNames[t]; ok {
		return n
	}
	return fmt.Sprintf("type %o", t)
}

func entryOf(path string, st *unix.Stat_t) *Entry {
	e := &Entry{
		Path: path, Type: st.Mode & unix.S_IFMT, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		MTime: st.Mtim.Nano(), Leader: path,
	}
	switch e.Type {
	case unix.S_IFREG:
		e.Size = st.Size
	case unix.S_IFLNK:
		e.Mode = 0 // Linux shows 0777 whatever was asked for
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Rdev = st.Rdev
	}
	if e.Type != unix.S_IFDIR && st.Nlink > 1 {
		e.file = fileID{st.Dev, st.Ino}
	}
	return e
}
