package monitor

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A place is where a file system shows within the tree: the root, or a mount
// beneath it.
type place struct {
	path string // absolute
	rel  string // relative to the root
	fsid [2]int32
}

// lookup turns handles into paths during one batch of events. It holds a
// descriptor per place only as long: a descriptor keeps a file system mounted,
// a mark does not.
//
// WINDOW: umount says "busy" if it comes during a batch.
//
// What it found is kept within the batch. A folder may be renamed meanwhile and
// an answer be out of date, but then the rename's own event is yet to be read and
// hints both its names deep.
type lookup struct {
	places []place
	open   []opened
	known  map[string]answer
}

type opened struct {
	tried bool
	fd    int
	real  string // the place's path as the kernel gives it now
}

// An answer lists the relative paths of a folder; more than one if its file system
// shows in several places, none if in none.
type answer struct {
	state state
	rels  []string
	cut   bool // the path is too long: rels are folders above
}

type state uint8

const (
	lost  state = iota // exists, or may, but cannot be named
	stale              // was deleted
	found
)

func newLookup(places []place) *lookup {
	return &lookup{places: places, open: make([]opened, len(places)), known: make(map[string]answer)}
}

func (l *lookup) close() {
	for _, o := range l.open {
		if o.tried && o.fd >= 0 {
			_ = unix.Close(o.fd) // of a folder opened for reading: nothing to lose
		}
	}
}

// folder names the folder of i.
func (l *lookup) folder(i *info) answer {
	key := i.key()
	if a, ok := l.known[key]; ok {
		return a
	}
	a := l.resolve(i, fdPath)
	l.known[key] = a
	return a
}

// object names an object that came without its folder: it was opened by handle
// and not by name, as NFS servers do. The name it has in memory may be none.
func (l *lookup) object(i *info) answer { return l.resolve(i, objectPath) }

type pathOf func(fd int) (path string, cut bool, err error)

func (l *lookup) resolve(i *info, path pathOf) (a answer) {
	a.state = stale
	matched := false
	for n := range l.places {
		if l.places[n].fsid == i.fsid {
			matched = true
			l.resolveIn(n, i, path, &a)
		}
	}
	// A btrfs subvolume may name itself in events by another ID than in statfs.
	for n := 0; n < len(l.places) && !matched; n++ {
		l.resolveIn(n, i, path, &a)
	}
	if len(a.rels) > 0 {
		a.state = found
	}
	return a
}

func (l *lookup) resolveIn(n int, i *info, path pathOf, a *answer) {
	o := l.at(n)
	if o.fd < 0 {
		if a.state == stale {
			a.state = lost
		}
		return
	}
	fd, err := unix.OpenByHandleAt(o.fd, i.fileHandle(), unix.O_PATH|unix.O_CLOEXEC)
	if err == nil {
		defer unix.Close(fd)
		var p string
		var cut bool
		if p, cut, err = path(fd); err == nil {
			a.state = found // and, unless it is within the place, of no interest
			a.cut = a.cut || cut
			a.add(l.places[n].rel, o.real, p)
			return
		}
	}
	if !errors.Is(err, unix.ESTALE) && a.state == stale {
		a.state = lost
	}
}

// add takes in an absolute path. Of a folder that was removed but is still open
// the kernel gives the last one, and an addition that may also be a name's end.
func (a *answer) add(prefix, real, path string) {
	if rel, ok := beneath(real, path); ok {
		a.rels = append(a.rels, join(prefix, rel))
	}
	if was, ok := strings.CutSuffix(path, " (deleted)"); ok {
		if rel, ok := beneath(real, was); ok {
			a.rels = append(a.rels, join(prefix, rel))
		}
	}
}

// at opens the n-th place, once per batch.
func (l *lookup) at(n int) opened {
	o := &l.open[n]
	if o.tried {
		return *o
	}
	o.tried, o.fd = true, -1
	fd, fsid, err := openPlace(l.places[n].path)
	if err != nil {
		return *o
	}
	real, _, err := fdPath(fd)
	if err != nil || fsid != l.places[n].fsid { // something else is mounted there, or nothing
		_ = unix.Close(fd)
		return *o
	}
	o.fd, o.real = fd, real
	return *o
}

// openPlace opens a folder and tells which file system it is on.
func openPlace(path string) (fd int, fsid [2]int32, err error) {
	fd, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fsid, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		_ = unix.Close(fd)
		return -1, fsid, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return fd, st.Fsid.Val, nil
}

// fdPath returns the path of a folder as the kernel knows it now. If it is longer
// than the kernel can tell, it is that of the first folder above that is not.
func fdPath(fd int) (path string, cut bool, err error) {
	buf := make([]byte, unix.PathMax+1)
	for at := fd; ; {
		n, err := unix.Readlink(fmt.Sprintf("/proc/self/fd/%d", at), buf)
		if err == nil {
			path = string(buf[:n])
		}
		var up int
		if errors.Is(err, unix.ENAMETOOLONG) {
			up, err = unix.Openat(at, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
		if at != fd {
			_ = unix.Close(at)
		}
		if err != nil || path != "" {
			return path, at != fd, err
		}
		at = up
	}
}

var errNameless = errors.New("object without a name")

// objectPath returns the path of any object, if the one that the kernel gives
// leads back to it.
func objectPath(fd int) (path string, cut bool, err error) {
	var st, there unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", false, err
	}
	if st.Nlink == 0 {
		return "", false, unix.ESTALE
	}
	path, cut, err = fdPath(fd)
	if err != nil || cut || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return path, cut, err
	}
	if err := unix.Lstat(path, &there); err != nil || there.Ino != st.Ino || there.Dev != st.Dev {
		return "", false, errNameless
	}
	return path, false, nil
}
