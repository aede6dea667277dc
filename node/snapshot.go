package node

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/clsync/clsync/node/replica"
	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/transfer/disk"
)

// maxSnapshots bounds how many are kept, one per path: the oldest goes first. Peers
// then wait for the next one of that path, if they do not have it yet.
const maxSnapshots = 64

// Taking a snapshot may read and write all of the file. So a path that gave none
// waits for the next try up to maxPause longer than for the last, and one that gave
// one waits for pauseFor times as long as that took.
const (
	maxPause = 10 * time.Minute
	pauseFor = 4
)

// moment takes a snapshot of a file that has moved for too long. It is the version
// then, and served from staging, although the live file has gone on.
func (t *tree) moment(ctx context.Context, r *signature.Root, task replica.LookTask) (signature.Look, bool) {
	// What a receive-only node shows of its own is not sent.
	if t.cfg.Load().ReceiveOnly || !t.snapshots.due(task.Path, task.Moving) {
		return signature.Look{}, false
	}
	d, err := t.openDisk(r)
	if err != nil {
		t.log.Warn("private folder cannot be opened", "err", err)
		return signature.Look{}, false
	}
	defer d.Close()
	began, id := time.Now(), t.snapshots.draw()
	l, err := d.Snapshot(ctx, id, task.Path)
	if err != nil {
		t.snapshots.failed(task.Path, task.Moving)
		if !errors.Is(err, signature.ErrMoving) && !signature.IsAbsent(err) && ctx.Err() == nil {
			t.log.Warn("a file that is written without pause cannot be shown; tried again", "path", task.Path.Quote(), "err", err)
		}
		return signature.Look{}, false
	}
	took := time.Since(began)
	t.log.Debug("snapshot", "path", task.Path.Quote(), "bytes", l.Sig.Size, "took", took)
	t.removeSnapshot(d, t.snapshots.add(task.Path, snapshot{id: id, hash: l.Sig.Hash, took: took}))
	return l, true
}

// rested forgets the snapshot of a path that was found at rest.
func (t *tree) rested(r *signature.Root, p signature.Path) {
	id := t.snapshots.forget(p)
	if id == "" {
		return
	}
	d, err := t.openDisk(r)
	if err != nil {
		t.log.Warn("staging cannot be cleared; done at the next start", "err", err)
		return
	}
	defer d.Close()
	t.removeSnapshot(d, id)
}

func (t *tree) removeSnapshot(d *disk.Tree, id string) {
	if id == "" {
		return
	}
	if err := d.RemoveBatch(id); err != nil {
		t.log.Warn("staging cannot be cleared; done at the next start", "err", err)
	}
}

// sweepSnapshots forgets the paths at which nothing stands any more, or nothing that
// is replicated: no look need have said so.
func (t *tree) sweepSnapshots(ctx context.Context) {
	paths := t.snapshots.paths()
	if len(paths) == 0 {
		return
	}
	t.root.with(ctx, func(r *signature.Root) {
		for _, p := range paths {
			if _, there := stat(r, p); !there || t.ignored(p, false) {
				t.rested(r, p)
			}
		}
	})
}

// snapshots remembers which there are, and which paths gave none.
type snapshots struct {
	mu    sync.Mutex
	last  uint64
	taken map[signature.Path]snapshot
	tried map[signature.Path]time.Duration // how long it had moved then
	users map[string]int                   // pushes under way, by snapshot
}

type snapshot struct {
	id   string
	seq  uint64
	hash signature.Hash
	took time.Duration
}

// draw names a snapshot.
func (s *snapshots) draw() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	return "s" + strconv.FormatUint(s.last, 10)
}

// due tells whether a path that has moved for so long is to give a snapshot. If it
// gave none, the next try is after twice the time. While its last one is on its way
// to a peer there is no next one: a peer whose line is slower than the writer would
// get one after the other, and each too late.
func (s *snapshots) due(p signature.Path, moving time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, last := s.tried[p], s.taken[p]
	switch {
	case moving < max(replica.Restless, min(pauseFor*last.took, maxPause)):
		return false
	case s.users[last.id] > 0 && moving < maxPause:
		return false
	}
	return moving < at || moving >= at+min(at, maxPause)
}

// use notes that a snapshot is pushed; what it returns, that it no longer is.
func (s *snapshots) use(id string) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == nil {
		s.users = map[string]int{}
	}
	s.users[id]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.users[id]--; s.users[id] == 0 {
			delete(s.users, id)
		}
	}
}

func (s *snapshots) failed(p signature.Path, moving time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tried == nil || len(s.tried) > 16*maxSnapshots {
		s.tried = map[signature.Path]time.Duration{}
	}
	s.tried[p] = moving
}

// add remembers a snapshot and returns the one that is to go for it, if any.
func (s *snapshots) add(p signature.Path, taken snapshot) (old string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken == nil {
		s.taken = map[signature.Path]snapshot{}
	}
	delete(s.tried, p)
	goes, full := p, s.taken[p].id == "" && len(s.taken) >= maxSnapshots
	if full {
		for q, t := range s.taken {
			if goes == p || t.seq < s.taken[goes].seq {
				goes = q
			}
		}
	}
	old = s.taken[goes].id
	delete(s.taken, goes)
	s.last++
	taken.seq = s.last
	s.taken[p] = taken
	return old
}

// forget forgets a path and returns its snapshot, if there is one.
func (s *snapshots) forget(p signature.Path) (id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id = s.taken[p].id
	delete(s.taken, p)
	delete(s.tried, p)
	return id
}

func (s *snapshots) find(h signature.Hash) (id string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.taken {
		if t.hash == h {
			return t.id, true
		}
	}
	return "", false
}

func (s *snapshots) paths() []signature.Path {
	s.mu.Lock()
	defer s.mu.Unlock()
	ps := make([]signature.Path, 0, len(s.taken))
	for p := range s.taken {
		ps = append(ps, p)
	}
	return ps
}
