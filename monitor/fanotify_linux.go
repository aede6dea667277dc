package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// fanotify watches whole file systems: that of the root and those mounted beneath
// it. It costs nothing to arm and sees every name, however deep; what lies outside
// the tree is dropped as soon as its folder is named.
//
// A folder that cannot be resolved any more (ESTALE) was deleted. Its event is
// dropped, which is safe: that deletion, or a rename before it, made an event in
// the folder above, which hints it deep; where that folder is gone as well the
// same holds for it, up to the root, whose own end is the owner's to notice. For
// this the removal and renaming of folders is hinted even if we did it ourselves.
type fanotify struct {
	root     string
	self     func(pid int) bool
	pace     time.Duration
	log      *slog.Logger
	sink     *sink
	counters *counters

	file   *os.File
	mask   uint64
	id     placeID
	mounts *mounts
	places atomic.Pointer[[]place] // written by tend, read by read
	polled []string                // mounts that cannot be marked
	lost   atomic.Bool             // an event could not be resolved since the last tick
}

// A placeID tells one root from another that took its path.
type placeID struct {
	fsid [2]int32
	ino  uint64
}

const (
	changes = unix.FAN_MODIFY | unix.FAN_CLOSE_WRITE | unix.FAN_ATTRIB | unix.FAN_CREATE | unix.FAN_DELETE
	moves   = unix.FAN_MOVED_FROM | unix.FAN_MOVED_TO // before Linux 5.17 for FAN_RENAME
	naming  = unix.FAN_CREATE | unix.FAN_DELETE | unix.FAN_RENAME | moves
	leaving = unix.FAN_DELETE | unix.FAN_RENAME | moves
)

func openFanotify(cfg Config, s *sink, c *counters) (backend, error) {
	b := &fanotify{root: cfg.Root, self: cfg.Self, pace: cfg.PollUnwatched, log: cfg.Logger, sink: s, counters: c}
	if err := b.open(cfg.smallQueue); err != nil {
		return nil, fmt.Errorf("fanotify: %w", err)
	}
	return b, nil
}

func (b *fanotify) open(smallQueue bool) (err error) {
	flags := uint(unix.FAN_CLASS_NOTIF | unix.FAN_CLOEXEC | unix.FAN_NONBLOCK | unix.FAN_UNLIMITED_MARKS)
	if !smallQueue {
		flags |= unix.FAN_UNLIMITED_QUEUE
	}
	fd, err := unix.FanotifyInit(flags|unix.FAN_REPORT_DFID_NAME_TARGET, unix.O_RDONLY)
	if errors.Is(err, unix.EINVAL) { // before Linux 5.17
		fd, err = unix.FanotifyInit(flags|unix.FAN_REPORT_DFID_NAME, unix.O_RDONLY)
	}
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	b.file = os.NewFile(uintptr(fd), "fanotify")
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.id, err = b.chooseMask(); err != nil {
		return err
	}
	if b.mounts, err = openMounts(b.root); err != nil {
		return err
	}
	b.survey()
	return b.check()
}

// chooseMask marks the root's file system, with renames as one event if the kernel
// has that.
func (b *fanotify) chooseMask() (placeID, error) {
	fd, id, err := openRoot(b.root)
	if err != nil {
		return id, err
	}
	defer unix.Close(fd)
	b.mask = changes | unix.FAN_RENAME | unix.FAN_ONDIR
	err = b.mark(fd)
	if errors.Is(err, unix.EINVAL) {
		b.mask = changes | moves | unix.FAN_ONDIR
		err = b.mark(fd)
	}
	if err != nil {
		return id, fmt.Errorf("mark the file system of %s: %w", signature.Quote(b.root), err)
	}
	return id, nil
}

func openRoot(root string) (fd int, id placeID, err error) {
	fd, fsid, err := openPlace(root)
	if err != nil {
		return -1, id, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return -1, id, fmt.Errorf("stat %s: %w", signature.Quote(root), err)
	}
	return fd, placeID{fsid, st.Ino}, nil
}

func (b *fanotify) mark(fd int) (err error) {
	conn, err := b.file.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(group uintptr) {
		err = unix.FanotifyMark(int(group), unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, b.mask, fd, "")
	})
	return errors.Join(cerr, err)
}

// check proves that this process may resolve handles: that takes a privilege of
// its own, and procfs.
func (b *fanotify) check() error {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, b.root, 0)
	if err != nil {
		return fmt.Errorf("handle of %s: %w", signature.Quote(b.root), err)
	}
	l := newLookup(*b.places.Load())
	defer l.close()
	root := l.at(0)
	if root.fd < 0 {
		return fmt.Errorf("%s moved meanwhile", signature.Quote(b.root))
	}
	fd, err := unix.OpenByHandleAt(root.fd, h, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return fmt.Errorf("resolve a handle: %w", err)
	}
	defer unix.Close(fd)
	if path, _, err := fdPath(fd); err != nil || path != root.real {
		return fmt.Errorf("resolve a handle: %s for %s (%v)", signature.Quote(path), signature.Quote(root.real), err)
	}
	return nil
}

// run reads events and tends to mounts until ctx ends.
func (b *fanotify) run(ctx context.Context) error {
	if err := b.file.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("read fanotify: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var tendErr error
	wg.Go(func() {
		<-ctx.Done()
		_ = b.file.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed file, which ends the read as well
	})
	wg.Go(func() {
		tendErr = b.tend(ctx)
		cancel()
	})
	err := b.read()
	cancel()
	wg.Wait()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return errors.Join(err, tendErr)
}

func (b *fanotify) read() error {
	buf := make([]byte, 256<<10)
	for {
		n, err := b.file.Read(buf)
		if err != nil {
			return fmt.Errorf("read fanotify: %w", err)
		}
		l := newLookup(*b.places.Load())
		err = parseEvents(buf[:n], func(ev *event) { b.see(l, ev) })
		l.close()
		if err != nil { // the rest of the batch is lost with it
			b.log.Error("events lost", "err", err)
			b.overflow()
		}
	}
}

func (b *fanotify) overflow() {
	b.counters.overflows.Add(1)
	b.sink.hint("", deep|overflow)
}

// see hints what an event names.
func (b *fanotify) see(l *lookup, ev *event) {
	b.counters.events.Add(1)
	if ev.mask&unix.FAN_Q_OVERFLOW != 0 {
		b.overflow()
		return
	}
	folder := ev.mask&unix.FAN_ONDIR != 0
	// pid is 0 for a writer outside our pid namespace: never us.
	if ev.pid != 0 && b.self(ev.pid) && !(folder && ev.mask&leaving != 0 && !b.appears(l, ev)) {
		return
	}
	var m mark
	if folder && ev.mask&naming != 0 {
		m = deep
	}
	for n := range ev.infos {
		i := &ev.infos[n]
		if i.kind != unix.FAN_EVENT_INFO_TYPE_FID {
			b.hint(l.folder(i), i.name, m, ev.mask&naming != 0)
		} else if len(ev.infos) == 1 {
			b.hintObject(l.object(i), ev.mask)
		}
	}
}

// appears tells of a rename by ourselves that only brings a folder in from our
// private one: nobody else can have been in it, so nothing of theirs hangs on it.
func (b *fanotify) appears(l *lookup, ev *event) bool {
	for n := range ev.infos {
		if i := &ev.infos[n]; i.kind == unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME {
			a := l.folder(i)
			return len(a.rels) > 0 && !slices.ContainsFunc(a.rels, func(rel string) bool { return !private(join(rel, i.name)) })
		}
	}
	return false
}

func (b *fanotify) hint(a answer, name string, m mark, named bool) {
	if a.state == lost {
		b.unresolved()
	}
	for _, rel := range a.rels {
		switch {
		case a.cut:
			b.sink.hint(rel, deep)
		case name == "" || name == ".":
			b.sink.hint(rel, m)
		case named:
			b.sink.named(join(rel, name), m)
		default:
			b.sink.hint(join(rel, name), m)
		}
	}
}

// hintObject hints an object without a folder. One without a name either counts as
// unresolved if it was written to. If only its attributes changed it does not:
// that is what every removal of one hard link of several looks like.
func (b *fanotify) hintObject(a answer, mask uint64) {
	if a.state == lost && mask&(unix.FAN_MODIFY|unix.FAN_CLOSE_WRITE) == 0 {
		return
	}
	b.hint(a, "", 0, false)
}

// unresolved remembers that something changed and nobody knows where. The next
// tick hints the whole tree; not at once, since what cannot be resolved comes
// often or never.
func (b *fanotify) unresolved() {
	b.counters.unresolved.Add(1)
	b.lost.Store(true)
}

func (b *fanotify) close() error {
	err := b.file.Close()
	if b.mounts != nil {
		err = errors.Join(err, b.mounts.close())
	}
	return err
}
