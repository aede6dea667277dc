package node

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/clsync/clsync/monitor"
	"github.com/clsync/clsync/node/replica"
	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/transfer/disk"
)

// bigLook is the size from which a file is hashed by a goroutine of its own, so
// that it holds up no others; maxBacklog is how many paths may wait for a look
// before a scan pauses.
const (
	bigLook    = 8 << 20
	maxBacklog = 20000
)

// watch arms the monitor, then asks for a scan: whatever happens after the arming
// gives a hint, whatever happened before is found. It starts over for each root.
func (t *tree) watch(ctx context.Context) error {
	for ctx.Err() == nil {
		epoch, changed, reason := t.root.state()
		if reason != nil {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		if err := t.watchRoot(ctx, epoch); err != nil {
			why := err.Error()
			t.monitor.Store(&monitorState{"none", why})
			t.log.Error("not watched: changes are found by scans only, until it can be", "err", err)
			t.post(ctx, replica.Hinted{Paths: []signature.Path{""}, Deep: true})
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Second):
			case <-changed:
			}
		}
	}
	return nil
}

func (t *tree) watchRoot(ctx context.Context, epoch int) error {
	m, err := monitor.Open(monitor.Config{
		Root: t.cfg.Load().Path, Backend: string(t.cfg.Load().Monitor), Logger: t.log,
		Ignored: func(p signature.Path) bool { return t.ignored(p, true) && t.ignored(p, false) },
	})
	if err != nil {
		return err
	}
	t.monitor.Store(&monitorState{m.Backend(), m.Reason()})
	t.log.Info("watching", "backend", m.Backend(), "why", m.Reason())
	t.post(ctx, replica.Hinted{Paths: []signature.Path{""}, Deep: true})

	ctx, cancel := context.WithCancel(ctx)
	hints := make(chan []monitor.Hint)
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx, hints) }()
	stats := time.NewTicker(time.Second)
	defer stats.Stop()
	var seen monitor.Stats
	for {
		now, changed, _ := t.root.state()
		if now != epoch {
			cancel()
		}
		select {
		case batch := <-hints:
			t.hint(ctx, batch)
		case <-changed:
		case <-stats.C:
			s := m.Stats()
			if s.Overflows > seen.Overflows {
				t.counts.overflows.Add(int64(s.Overflows - seen.Overflows))
				t.log.Warn("the kernel lost events; scanning")
			}
			if s.Limited && !seen.Limited {
				t.monitor.Store(&monitorState{m.Backend(), "limit of watches reached; the rest is scanned again and again: raise fs.inotify.max_user_watches"})
			}
			seen = s
		case err := <-done:
			cancel()
			return errors.Join(err, m.Close())
		}
	}
}

func (t *tree) hint(ctx context.Context, batch []monitor.Hint) {
	var flat replica.Hinted
	for _, h := range batch {
		if h.Deep {
			t.post(ctx, replica.Hinted{Paths: []signature.Path{h.Path}, Deep: true})
		} else if h.Path != "" {
			flat.Paths = append(flat.Paths, h.Path)
		}
	}
	if len(flat.Paths) > 0 {
		t.post(ctx, flat)
	}
}

// lookAll looks at what the core asks for, batch by batch.
func (t *tree) lookAll(ctx context.Context) error {
	return t.looks.each(ctx, func(tasks []replica.LookTask) {
		var seen []replica.Seen
		var large []replica.LookTask
		ok := t.root.with(ctx, func(r *signature.Root) {
			seen, large = seen[:0], large[:0]
			for _, task := range tasks {
				s, big := t.look(ctx, r, task, false)
				if big {
					large = append(large, task)
				} else {
					seen = append(seen, s)
				}
			}
		})
		if !ok {
			return
		}
		for _, task := range large {
			t.big.push(task)
		}
		if len(seen) > 0 {
			t.post(ctx, replica.Looked{Looks: seen})
		}
	})
}

func (t *tree) lookBig(ctx context.Context) error {
	return t.big.each(ctx, func(task replica.LookTask) { t.lookOne(ctx, task) })
}

func (t *tree) lookOne(ctx context.Context, task replica.LookTask) {
	var s replica.Seen
	if t.root.with(ctx, func(r *signature.Root) { s, _ = t.look(ctx, r, task, true) }) {
		t.post(ctx, replica.Looked{Looks: []replica.Seen{s}})
	}
}

// look looks at one path. A big file that still changes is put off, and any big
// file is left to lookBig, unless large. What has moved for longer than its bound
// gives a snapshot, if it can.
func (t *tree) look(ctx context.Context, r *signature.Root, task replica.LookTask, large bool) (s replica.Seen, big bool) {
	s.Task = task
	s.Look.Path = task.Path
	st, ok := stat(r, task.Path)
	same := st.Same(task.Mark)
	// A mark that is young proves nothing: all of it is read then as well.
	if ok && st.Size >= bigLook && !(same && task.Mark.Settled()) {
		if rest := t.rest(st); rest > 0 && !same {
			s.Later = rest
			switch {
			case task.Moving < time.Duration(t.cfg.Load().BigDelay) || !t.snapshots.due(task.Path, task.Moving):
			case !large:
				return s, true
			default: // a look would only tell that it moves
				if l, ok := t.moment(ctx, r, task); ok {
					s.Look, s.Later = l, 0
				}
			}
			return s, false
		}
		if !large {
			return s, true
		}
	}
	s.Look = r.Look(ctx, task.Path, task.Shown, task.Mark)
	s.Look.Path = task.Path
	if !errors.Is(s.Look.Err, signature.ErrMoving) {
		if s.Look.Err == nil {
			t.rested(r, task.Path)
		}
		return s, false
	}
	if l, ok := t.moment(ctx, r, task); ok {
		s.Look = l
		return s, false
	}
	s.Look.Err, s.Later = nil, 30*time.Millisecond
	if large {
		s.Later = 500 * time.Millisecond
	}
	return s, false
}

// rest says for how long a big file must still lie still before it is looked at. Its
// mtime may be anything; a ctime that lies ahead is of a clock that was put back.
func (t *tree) rest(st signature.StatMark) time.Duration {
	c := t.cfg.Load()
	delay := time.Duration(c.BigDelay)
	rest := delay - time.Duration(time.Now().UnixNano()-st.CTime)
	if st.Size < int64(c.BigSize) || rest <= 0 || rest > delay {
		return 0
	}
	return max(rest, 10*time.Millisecond)
}

// scanAll walks where the core asks for, folder by folder, and pauses while much is
// still to be looked at.
func (t *tree) scanAll(ctx context.Context) error {
	for {
		var from signature.Path
		select {
		case <-ctx.Done():
			return nil
		case from = <-t.scans:
		}
		t.counts.scans.Add(1)
		var err error
		ok := t.root.with(ctx, func(r *signature.Root) { err = t.scan(ctx, r, from) })
		if !ok {
			return nil
		}
		t.post(ctx, replica.ScanDone{Path: from})
		switch {
		case err == nil && from == "":
			t.ready.Store(true)
		case err != nil && ctx.Err() == nil:
			t.log.Warn("scan ended early; it is tried again", "path", from.Quote(), "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(scanRetry):
			}
			t.post(ctx, replica.Hinted{Paths: []signature.Path{from}, Deep: true})
		}
	}
}

// scanRetry is how long a scan rests that ended early: no descriptors, a bad disk.
const scanRetry = 5 * time.Second

func (t *tree) scan(ctx context.Context, r *signature.Root, from signature.Path) error {
	s := scanner{t: t, ctx: ctx}
	if from == "" {
		s.open("")
	} else {
		t.post(ctx, replica.Hinted{Paths: []signature.Path{from}})
	}
	err := r.Walk(ctx, from, s.visit)
	for len(s.folders) > 0 {
		s.closeLast(err == nil)
	}
	if signature.IsAbsent(err) {
		return nil // the look at it says so
	}
	return err
}

// A scanner collects what a walk names, folder by folder.
type scanner struct {
	t       *tree
	ctx     context.Context
	folders []scanned
}

type scanned struct {
	path    signature.Path
	entries []replica.Entry
	broken  bool // not all of its names could be read
}

func (s *scanner) open(p signature.Path) { s.folders = append(s.folders, scanned{path: p}) }

func (s *scanner) closeLast(whole bool) {
	f := s.folders[len(s.folders)-1]
	s.folders = s.folders[:len(s.folders)-1]
	if f.broken || !whole {
		return
	}
	s.t.post(s.ctx, replica.Scanned{Folder: f.path, Entries: f.entries})
	for s.t.backlog.Load() > maxBacklog && s.ctx.Err() == nil {
		select {
		case <-s.ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *scanner) visit(e signature.Entry) error {
	parent, _ := e.Path.Parent()
	for len(s.folders) > 0 && s.folders[len(s.folders)-1].path != parent {
		s.closeLast(true)
	}
	if e.Err != nil {
		// What cannot be read says nothing about what is in it.
		if len(s.folders) > 0 {
			s.folders[len(s.folders)-1].broken = true
		}
		s.t.post(s.ctx, replica.Hinted{Paths: []signature.Path{e.Path}})
		return nil
	}
	if s.t.ignored(e.Path, e.Type == signature.Folder) {
		if e.Type == signature.Folder {
			return skipFolder
		}
		return nil
	}
	if len(s.folders) > 0 {
		f := &s.folders[len(s.folders)-1]
		f.entries = append(f.entries, replica.Entry{Path: e.Path, Mark: e.Mark})
	}
	if e.Type == signature.Folder {
		s.open(e.Path)
	}
	return nil
}

// apply carries out a batch on the live tree.
func (t *tree) apply(ctx context.Context, tasks []replica.ApplyTask) {
	batch := make([]disk.Apply, 0, len(tasks))
	for _, a := range tasks {
		d := disk.Apply{Path: a.Path, Target: a.Target, Expect: a.Expect, Mark: a.Mark}
		switch a.Source {
		case replica.FromStaging:
			d.Content.Batch, d.Content.Staged = batchName(a.Staged.Batch), string(a.Staged.Path)
		case replica.FromMove:
			d.Content.MoveFrom, d.Content.Mark = a.Name, a.From
			d.Content.Sig = a.FromSig
		case replica.FromCopy:
			d.Content.CopyFrom = a.Name
		case replica.FromLink:
			d.Content.LinkTo, d.Content.Mark = a.Name, a.From
			d.Content.Sig = a.FromSig
		}
		if a.Keep != nil {
			d.Keep = caseName(a.Path, *a.Keep)
			d.Note = t.note(a.Path, *a.Keep, a.Version)
		}
		batch = append(batch, d)
	}
	results := make([]replica.Result, len(tasks))
	ok := t.root.with(ctx, func(r *signature.Root) {
		d, err := t.openDisk(r)
		if err != nil {
			for i, a := range tasks {
				results[i] = replica.Result{Task: a, Outcome: replica.Blocked, Err: err}
			}
			return
		}
		defer d.Close()
		applied, err := d.Apply(ctx, batch, disk.SyncAuto)
		if err != nil {
			t.log.Error("apply", "err", err)
		}
		for i, res := range applied {
			results[i] = replica.Result{Task: tasks[i], Outcome: outcome(res), Look: res.Look, Kept: res.Kept != "", Unkept: res.Unkept != nil, Err: res.Err}
			results[i].Look.Path = tasks[i].Path
			if results[i].Kept {
				t.kept.add(res.Kept, tasks[i].Expect.Hash)
			}
			if res.Resting {
				t.resting.Add(1)
			}
			if err != nil && res.Outcome == disk.Done {
				// Done, and perhaps not on disk: it is looked at again.
				results[i].Outcome, results[i].Err = replica.Blocked, err
			}
			if res.Outcome == disk.Blocked {
				t.log.Debug("not applied", "path", tasks[i].Path.Quote(), "err", res.Err)
			}
		}
	})
	if ok {
		t.post(ctx, replica.Applied{Results: results})
	}
}

func outcome(res disk.Applied) replica.Outcome {
	switch res.Outcome {
	case disk.Done:
		return replica.Done
	case disk.Moved:
		return replica.Moved
	case disk.Busy:
		return replica.Busy
	case disk.NoParent:
		return replica.NoParent
	case disk.NotEmpty:
		return replica.NotEmpty
	}
	if errors.Is(res.Err, disk.ErrContent) || errors.Is(res.Err, disk.ErrSource) {
		return replica.NoSource
	}
	return replica.Blocked
}

func batchName(b uint64) string { return "b" + strconv.FormatUint(b, 10) }
