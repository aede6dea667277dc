package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A watcher is inotify on a folder and all beneath it, without any of the care that
// a replicator has to take: what is made in a folder before it is watched is
// reported with the folder.
type watcher struct {
	root string
	file *os.File
	fd   int
	dirs map[int32]string
	buf  []byte
}

const watched = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_CREATE |
	unix.IN_ATTRIB | unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW

func newWatcher(root string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("start inotify: %w", err)
	}
	w := &watcher{root: root, file: os.NewFile(uintptr(fd), "inotify"), fd: fd, dirs: map[int32]string{}, buf: make([]byte, 1<<20)}
	if err := w.add(""); err != nil {
		w.file.Close()
		return nil, err
	}
	return w, nil
}

// add watches a folder and what is beneath it. One that is gone is no error.
func (w *watcher) add(rel string) error {
	return filepath.WalkDir(filepath.Join(w.root, rel), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.IsDir() {
			return err
		}
		wd, err := unix.InotifyAddWatch(w.fd, path, watched)
		if err == unix.ENOENT {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch %s: %w", path, err)
		}
		w.dirs[int32(wd)] = strings.TrimPrefix(strings.TrimPrefix(path, w.root), "/")
		return nil
	})
}

// drain waits for changes and returns the paths of all that are there, once each.
func (w *watcher) drain() ([]string, error) {
	seen := map[string]bool{}
	var paths []string
	for {
		n, err := w.file.Read(w.buf)
		if err != nil {
			return nil, err
		}
		if err := w.take(w.buf[:n], func(path string) {
			if !seen[path] {
				seen[path] = true
				paths = append(paths, path)
			}
		}); err != nil {
			return nil, err
		}
		more, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, 0)
		if len(paths) > 0 && (err != nil || more == 0) {
			return paths, nil
		}
	}
}

// take reads the events in b.
func (w *watcher) take(b []byte, changed func(path string)) error {
	for len(b) >= unix.SizeofInotifyEvent {
		wd, mask := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])
		end := unix.SizeofInotifyEvent + binary.NativeEndian.Uint32(b[12:])
		name := string(bytes.TrimRight(b[unix.SizeofInotifyEvent:end], "\x00"))
		b = b[end:]
		dir, ok := w.dirs[wd]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			return errors.New("the kernel lost events")
		case mask&unix.IN_IGNORED != 0:
			delete(w.dirs, wd)
			continue
		case !ok || name == "":
			continue
		case mask&unix.IN_CREATE != 0 && mask&unix.IN_ISDIR == 0:
			continue // its close will come
		}
		path := filepath.Join(dir, name)
		if mask&unix.IN_ISDIR != 0 && mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0 {
			if err := w.add(path); err != nil {
				return err
			}
		}
		changed(path)
	}
	return nil
}
