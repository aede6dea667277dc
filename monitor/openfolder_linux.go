package monitor

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openFolder opens the folder at rel, through no symlink. The root is opened anew
// each time: a descriptor of it would keep its file system mounted.
func openFolder(root, rel string) (*os.File, folderID, error) {
	at, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, folderID{}, fmt.Errorf("open root: %w", err)
	}
	defer unix.Close(at)
	if rel == "" {
		rel = "."
	}
	fd, err := unix.Openat2(at, rel, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, folderID{}, fmt.Errorf("open folder: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return nil, folderID{}, fmt.Errorf("stat folder: %w", err)
	}
	return os.NewFile(uintptr(fd), root+"/"+rel), folderID{uint64(st.Dev), st.Ino}, nil
}
