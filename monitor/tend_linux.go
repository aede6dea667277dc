package monitor

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tend keeps up with mounts that come and go, and hints what cannot be watched.
func (b *fanotify) tend(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed, done := make(chan struct{}, 1), make(chan error, 1)
	go func() { done <- b.mounts.watch(ctx, changed) }()
	tick := time.NewTicker(b.pace)
	defer tick.Stop()
	for {
		select {
		case err := <-done: // soon after ctx ends
			return err
		case <-changed:
			b.remount()
		case <-tick.C:
			for _, rel := range b.polled {
				b.sink.hint(rel, deep)
			}
			if b.lost.Swap(false) {
				b.sink.hint("", deep|overflow)
			}
		}
	}
}

// remount looks at the mounts again, and hints those that came or went once they
// are marked.
func (b *fanotify) remount() {
	changed, err := b.mounts.survey()
	if err != nil {
		b.log.Error("mounts not read", "err", err)
		b.lost.Store(true)
		return
	}
	if len(changed) == 0 {
		return
	}
	b.survey()
	for _, rel := range changed {
		b.sink.hint(rel, deep)
	}
}

// survey marks every file system that shows in the tree. Marking again is free,
// and needed where one was unmounted and is back: the mark went with it.
func (b *fanotify) survey() {
	places := []place{{path: b.root, fsid: b.id.fsid}}
	marked := map[[2]int32]bool{}
	b.polled = nil
	if err := b.markRoot(); err != nil {
		b.log.Error("root not watched, polling", "err", err)
		b.polled = append(b.polled, "")
	} else {
		marked[b.id.fsid] = true
	}
	points := b.mounts.points()
	slices.SortFunc(points, func(x, y mount) int { return strings.Compare(x.point, y.point) })
	for n, mnt := range points {
		if n > 0 && points[n-1].point == mnt.point {
			continue // only what lies on top is seen
		}
		rel, _ := beneath(b.root, mnt.point)
		if b.sink.skip(rel) {
			continue
		}
		p, err := b.markPlace(mnt, rel)
		switch {
		case err == nil:
			places = append(places, p)
			marked[p.fsid] = true
		case errors.Is(err, unix.ENOENT): // gone again; the next signal comes
		default:
			b.log.Warn("mount not watched, polling", "path", rel, "err", err)
			b.polled = append(b.polled, rel)
		}
	}
	b.counters.watches.Store(uint64(len(marked)))
	b.counters.unwatched.Store(uint64(len(b.polled)))
	b.places.Store(&places)
}

// markRoot marks the root's file system, unless something else has taken its path:
// that would be none of our business.
func (b *fanotify) markRoot() error {
	fd, id, err := openRoot(b.root)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if id != b.id {
		return errors.New("not the folder that was opened")
	}
	return b.mark(fd)
}

// markPlace marks what is mounted on a folder. A file that is a mount point of its
// own cannot be found by its folder's handle, and is polled.
func (b *fanotify) markPlace(mnt mount, rel string) (place, error) {
	if mnt.kind == "autofs" {
		return place{}, errors.New("opening an autofs trigger would mount it")
	}
	fd, fsid, err := openPlace(mnt.point)
	if err != nil {
		return place{}, err
	}
	defer unix.Close(fd)
	return place{path: mnt.point, rel: rel, fsid: fsid}, b.mark(fd)
}
