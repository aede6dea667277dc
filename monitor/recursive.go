package monitor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// recursive watches every folder through fsnotify, which knows no trees.
//
// What an event says of a folder is never followed, only that something happened
// to its name: the name is looked at, and what stands there now is watched anew,
// first the watch and then the list, all the way down. So neither the order of
// events nor the old paths that fsnotify goes on reporting after a rename matter.
// A deep hint follows when all beneath is watched, and stands for whatever came
// before that.
type recursive struct {
	root     string
	pace     time.Duration
	log      *slog.Logger
	sink     *sink
	counters *counters
	inbox    *inbox
	pumped   sync.WaitGroup

	watcher *fsnotify.Watcher // nil if the system has none left: all is polled

	// Of the goroutine that runs, or of Open before it does.
	mounts *mounts
	folder *folders
	polled map[*folder]struct{} // topmost folders that cannot be watched
	files  []string             // files that are mount points; the same
	full   bool                 // the limit was met since the last tick
	warned bool
}

func openRecursive(cfg Config, s *sink, c *counters) (backend, error) {
	b := &recursive{
		root: cfg.Root, pace: cfg.PollUnwatched, log: cfg.Logger, sink: s, counters: c,
		inbox: newInbox(cfg.Pending), folder: newFolders(), polled: make(map[*folder]struct{}),
	}
	if err := b.open(); err != nil {
		return nil, fmt.Errorf("fsnotify: %w", err)
	}
	return b, nil
}

func (b *recursive) open() (err error) {
	b.watcher, err = fsnotify.NewWatcher()
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		b.log.Warn("no watcher left, polling: raise fs.inotify.max_user_instances", "err", err)
		b.watcher = nil
	} else if err != nil {
		return err
	} else {
		b.pumped.Go(b.pump)
	}
	if b.mounts, err = openMounts(b.root); err != nil {
		return errors.Join(err, b.close())
	}
	b.files = b.mounts.files()
	b.arm(context.Background(), &b.folder.root)
	return nil
}

// pump takes fsnotify's events as long as the watcher is open: while nobody does,
// fsnotify may keep a lock that adding a watch needs.
func (b *recursive) pump() {
	events, errs := b.watcher.Events, b.watcher.Errors
	for events != nil || errs != nil {
		select {
		case ev, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			b.see(ev)
		case err, ok := <-errs:
			if !ok {
				errs = nil
				continue
			}
			lost := errors.Is(err, fsnotify.ErrEventOverflow)
			switch {
			case lost:
				b.counters.overflows.Add(1)
			case errors.Is(err, syscall.EINVAL):
				// The watch of a folder that is gone was taken off by the kernel
				// first: there is nothing to report, and nothing was lost.
				continue
			default:
				b.log.Warn("watcher", "err", err)
			}
			b.inbox.addAll(lost)
		}
	}
}

func (b *recursive) see(ev fsnotify.Event) {
	b.counters.events.Add(1)
	rel, ok := beneath(b.root, filepath.Clean(ev.Name))
	if !ok || b.sink.skip(rel) {
		return
	}
	if ev.Op&(fsnotify.Create|fsnotify.Remove|fsnotify.Rename) == 0 {
		b.sink.hint(rel, 0)
		return
	}
	b.sink.named(rel, 0)
	b.inbox.add(rel)
}

// run sets watches as folders come and go, until ctx ends.
func (b *recursive) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed, done := make(chan struct{}, 1), make(chan error, 1)
	go func() { done <- b.mounts.watch(ctx, changed) }()
	tick := time.NewTicker(b.pace)
	defer tick.Stop()
	for {
		select {
		case err := <-done: // soon after ctx ends, or at close
			return err
		case <-b.inbox.wake:
			b.follow(ctx)
		case <-changed:
			b.remount(ctx)
		case <-tick.C:
			b.poll(ctx)
		}
	}
}

// follow looks at the names that came or went.
func (b *recursive) follow(ctx context.Context) {
	names, all, lost := b.inbox.take()
	if all {
		b.rearm(ctx, "", lost)
		return
	}
	done := make(map[string]struct{}) // armed just now, with all beneath
	order := slices.SortedFunc(maps.Keys(names), func(x, y string) int { return cmp.Compare(len(x), len(y)) })
	for _, rel := range order {
		if !within(done, rel) && b.rearm(ctx, rel, false) {
			done[rel] = struct{}{}
		}
	}
}

// within tells whether a folder above rel is in set.
func within(set map[string]struct{}, rel string) bool {
	for rel != "" {
		rel = parent(rel)
		if _, ok := set[rel]; ok {
			return true
		}
	}
	return false
}

// rearm watches what stands at rel, hints it deep if it is or was a folder, and
// tells whether it is one.
func (b *recursive) rearm(ctx context.Context, rel string, lost bool) bool {
	f := b.folder.find(rel)
	known := f != nil
	if !known {
		up := b.folder.find(parent(rel))
		if up == nil || !up.watched {
			return false // an old path, or polled; what is above is looked at on its own
		}
		f = up.kid(filepath.Base(rel))
	}
	b.arm(ctx, f)
	if !known && f.cut {
		return false
	}
	m := deep
	if lost {
		m |= overflow
	}
	b.sink.hint(rel, m)
	return !f.cut
}

func (b *recursive) remount(ctx context.Context) {
	changed, err := b.mounts.survey()
	if err != nil {
		b.log.Error("mounts not read", "err", err)
		changed = []string{""}
	}
	b.files = b.mounts.files()
	for _, rel := range changed {
		if !b.sink.skip(rel) {
			b.rearm(ctx, rel, false)
			b.sink.hint(rel, deep)
		}
	}
}

// poll hints what cannot be watched, and tries again to watch it.
func (b *recursive) poll(ctx context.Context) {
	b.full = false
	for _, f := range slices.Collect(maps.Keys(b.polled)) {
		if !f.polled {
			continue // dropped meanwhile
		}
		rel := f.path()
		if !b.full {
			b.arm(ctx, f)
		}
		b.sink.hint(rel, deep)
	}
	for _, rel := range b.files {
		b.sink.hint(rel, 0)
	}
	b.counters.limited.Store(b.full)
	b.countUnwatched()
}

func (b *recursive) countUnwatched() {
	b.counters.unwatched.Store(uint64(len(b.polled) + len(b.files)))
}

func (b *recursive) close() error {
	var err error
	if b.watcher != nil {
		err = b.watcher.Close()
		b.pumped.Wait()
	}
	if b.mounts != nil {
		err = errors.Join(err, b.mounts.close())
	}
	return err
}
