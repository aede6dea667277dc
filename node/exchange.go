package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/node/replica"
	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/transfer/disk"
	"github.com/clsync/clsync/transfer/message"
	"github.com/clsync/clsync/transfer/rsync"
	"github.com/clsync/clsync/transfer/session"
)

// maxServing bounds the wants of one peer that are served side by side; more are
// answered as failed, and asked for again.
const maxServing = 8

// patience is how long a peer may take to begin a push or to answer a want, beside
// the time in which it pushes. Others may have what it keeps us waiting for.
const patience = 2 * time.Minute

// A receiving is a batch that this node has asked for.
type receiving struct {
	from signature.NodeID

	mu      sync.Mutex
	ctx     context.Context // nil until it was asked for
	lane    rsync.Lane
	streams sync.WaitGroup
	open    int // streams
	runs    int
	ended   bool
	err     error             // why our rsync could not receive; read when all streams have ended
	done    chan message.Done // the peer's answer; capacity 1
	gone    chan struct{}     // closed when the session ends
}

func (f *fetches) add(batch uint64, r *receiving) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.run == nil {
		f.run = map[uint64]*receiving{}
	}
	f.run[batch] = r
	f.last = max(f.last, batch)
}

func (f *fetches) remove(batch uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.run, batch)
}

func (f *fetches) get(from signature.NodeID, batch uint64) *receiving {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.run[batch]; r != nil && r.from == from {
		return r
	}
	return nil
}

// begin lets the numbers of batches go on from an earlier run of the tree: what a
// peer still sends of that one is not taken for this one's.
func (f *fetches) begin(last uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = last
}

func (f *fetches) latest() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// asked tells whether a peer may take a batch for one that was asked of it: also one
// that was given up meanwhile.
func (f *fetches) asked(from signature.NodeID, batch uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.run[batch]
	return batch > 0 && batch <= f.last && (r == nil || r.from == from)
}

func (f *fetches) answered(from signature.NodeID, d message.Done) {
	if r := f.get(from, d.Batch); r != nil {
		select {
		case r.done <- d:
		default: // answered already
		}
	}
}

// abandon ends what was asked of a peer whose session has ended.
func (f *fetches) abandon(from signature.NodeID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.run {
		if r.from == from {
			select {
			case <-r.gone:
			default:
				close(r.gone)
			}
		}
	}
}

// fetch asks a peer for contents and waits for them in staging.
func (t *tree) fetch(ctx context.Context, task replica.FetchTask) {
	r := &receiving{from: task.From, done: make(chan message.Done, 1), gone: make(chan struct{})}
	t.fetches.add(task.Batch, r)
	t.background.Go(func() error {
		defer t.fetches.remove(task.Batch)
		t.post(ctx, replica.Fetched{Batch: task.Batch, Items: t.receive(ctx, task, r)})
		return nil
	})
}

func (t *tree) receive(ctx context.Context, task replica.FetchTask, r *receiving) []replica.FetchedItem {
	items := make([]replica.FetchedItem, len(task.Items))
	for i, it := range task.Items {
		items[i] = replica.FetchedItem{FetchItem: it, Outcome: replica.Failed}
	}
	run := ctx
	ctx, cancel := context.WithCancel(run) // until the session ends
	defer cancel()
	var lane rsync.Lane
	var err error
	ok := t.root.with(ctx, func(root *signature.Root) { lane, err = t.prepare(ctx, root, task) })
	if !ok {
		return items
	}
	if err != nil {
		t.log.Warn("cannot receive; tried again", "peer", t.node.peerName(task.From), "err", err)
		return failed(items, err)
	}
	r.mu.Lock()
	r.ctx, r.lane = ctx, lane
	r.mu.Unlock()
	w := message.Want{Tree: t.name, Batch: task.Batch, Lane: uint8(lane)}
	for _, it := range task.Items {
		w.Items = append(w.Items, message.Item{Path: it.Path, Dot: it.Dot, Hash: it.Hash, Size: it.Size})
	}
	frame := w.Encode()
	if err := t.sendPatiently(ctx, func() error { return t.node.hub.Send(task.From, message.TypeWant, frame) }); err != nil {
		return items
	}
	d, answered := r.wait(ctx, cancel)
	r.streams.Wait()
	if r.err != nil {
		failed(items, r.err)
	}
	if !answered {
		return items
	}
	if len(d.Answers) != len(items) {
		t.node.rogue(task.From, fmt.Errorf("tree %s: %w: %d answers to %d wants", t.name, ErrProtocol, len(d.Answers), len(items)))
		return items
	}
	// What is here is verified, whatever happens to the session.
	t.root.with(run, func(root *signature.Root) { t.verify(run, root, task, d.Answers, items) })
	return items
}

// wait waits for the peer's answer. From its end on no stream of the batch begins.
func (r *receiving) wait(ctx context.Context, cancel func()) (d message.Done, answered bool) {
	late := time.NewTicker(patience / 2)
	defer late.Stop()
	quiet := 0
	for {
		select {
		case d = <-r.done:
			answered = true
		case <-r.gone:
			cancel()
		case <-ctx.Done():
		case <-late.C:
			r.mu.Lock()
			if quiet++; r.open > 0 { // rsync has a watchdog of its own
				quiet = 0
			}
			r.mu.Unlock()
			if quiet <= 2 {
				continue
			}
		}
		r.mu.Lock()
		r.ended = true
		r.mu.Unlock()
		return d, answered
	}
}

// failed notes on all items why they are not here.
func failed(items []replica.FetchedItem, err error) []replica.FetchedItem {
	for i := range items {
		items[i].Err = err
	}
	return items
}

// prepare makes the batch's staging folder and chooses the lane. A clone of the live
// file can be patched in place: only what changed is written.
func (t *tree) prepare(ctx context.Context, root *signature.Root, task replica.FetchTask) (rsync.Lane, error) {
	d, err := t.openDisk(root)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	if _, err := d.Batch(batchName(task.Batch)); err != nil {
		return 0, err
	}
	if task.Lane != replica.Large || !task.Items[0].Basis {
		return rsync.Small, nil
	}
	switch err := d.Seed(ctx, batchName(task.Batch), task.Items[0].Path); {
	case err == nil:
		return rsync.LargeReflink, nil
	case errors.Is(err, disk.ErrNoReflink):
		return rsync.LargeCompare, nil
	case signature.IsAbsent(err):
		return rsync.Small, nil
	default:
		return 0, err
	}
}

// verify compares what was staged with the hashes that were asked for.
func (t *tree) verify(ctx context.Context, root *signature.Root, task replica.FetchTask, answers []message.Answer, items []replica.FetchedItem) {
	d, err := t.openDisk(root)
	if err != nil {
		t.log.Warn("cannot verify; fetched again", "err", err)
		return
	}
	defer d.Close()
	for i := range items {
		it := &items[i]
		switch answers[i] {
		case message.NotHere:
			it.Outcome = replica.NotHere
			continue
		case message.Failed:
			continue
		}
		h, size, err := d.HashStaged(ctx, batchName(task.Batch), it.Path)
		switch {
		case err == nil && h == it.Hash && size == it.Size:
			it.Outcome = replica.Got
		case err == nil:
			// Torn under rsync's hands, a disk that rots there, or a peer that lies:
			// not what its version names, so it is not wanted.
			t.node.distrust(task.From, fmt.Errorf("tree %s: content of %s is not what version %v names", t.name, it.Path.Quote(), it.Dot))
			it.Outcome = replica.NotHere
		case signature.IsAbsent(err):
			it.Outcome = replica.NotHere
		case errors.Is(err, signature.ErrKind), errors.Is(err, unix.ELOOP):
			t.node.distrust(task.From, fmt.Errorf("tree %s: what came for %s is no file", t.name, it.Path.Quote()))
			it.Outcome = replica.NotHere
		default:
			t.log.Warn("staged content cannot be read", "path", it.Path.Quote(), "err", err)
		}
	}
}

// incoming takes in a stream that a peer opened to push a batch. One that comes too
// late is turned down; one that was never asked for so is a breach of the protocol.
func (t *tree) incoming(from signature.NodeID, p message.Push, s *session.Stream) {
	breach := func(why string) {
		t.node.reject(s, why)
		t.node.rogue(from, fmt.Errorf("tree %s: %w: push of batch %d: %s", t.name, ErrProtocol, p.Batch, why))
	}
	if !t.fetches.asked(from, p.Batch) {
		breach("no such batch")
		return
	}
	r := t.fetches.get(from, p.Batch)
	if r == nil {
		t.node.reject(s, "batch was given up")
		return
	}
	r.mu.Lock()
	ctx, lane, ended, runs := r.ctx, r.lane, r.ended, r.runs
	begin := ctx != nil && !ended && runs < 2 && rsync.Lane(p.Lane) == lane
	if begin {
		r.runs++
		r.open++
		r.streams.Add(1)
	}
	r.mu.Unlock()
	switch {
	case begin:
	case ended:
		t.node.reject(s, "batch was given up")
		return
	default:
		breach("not as it was asked for")
		return
	}
	t.background.Go(func() error {
		defer r.streams.Done()
		err := t.runReceiver(ctx, from, p, lane, s)
		r.mu.Lock()
		r.open--
		r.err = errors.Join(r.err, err)
		r.mu.Unlock()
		return nil
	})
}

// upToRoot leads from a batch's staging folder to the tree's root.
const upToRoot = "../../.."

func compareDest(lane rsync.Lane) string {
	if lane == rsync.LargeCompare {
		return upToRoot
	}
	return ""
}

// runReceiver runs our rsync on a stream. The error is for the status: why contents
// cannot be received here.
func (t *tree) runReceiver(ctx context.Context, from signature.NodeID, p message.Push, lane rsync.Lane, s *session.Stream) error {
	batch := batchName(p.Batch)
	if err := rsync.CheckPeerArgs(lane, batch, compareDest(lane), p.Argv); err != nil {
		t.node.reject(s, err.Error())
		t.node.rogue(from, err)
		return nil
	}
	if err := s.Accept(ctx); err != nil {
		return nil // the sender notices as well
	}
	t.counts.rsyncRuns.Add(1)
	dir := t.cfg.Load().Path
	_, err := rsync.Receive(ctx, rsync.ReceiveSpec{
		Binary: t.node.rsync, Helper: t.node.helper("jail"), Lane: lane,
		StagingDir: dir + "/" + signature.Private + "/staging/" + batch, TreeRoot: dir,
		CompareDest: compareDest(lane), Jail: t.node.jail, Logger: t.log,
	}, serverConn{s})
	if err == nil || ctx.Err() != nil {
		return nil
	}
	t.log.Warn("receiving rsync", "peer", t.node.peerName(from), "err", err)
	return err
}

// serve answers a want: it pushes what this disk holds and says of each item what
// became of it. It is called by the tree's goroutine.
func (t *tree) serve(ctx context.Context, from signature.NodeID, w message.Want, s *peerSession) {
	answers := make([]message.Answer, len(w.Items))
	marks := make([]signature.StatMark, len(w.Items))
	for i, it := range w.Items {
		answers[i] = message.NotHere
		if m, ok := t.core.Serves(it.Path, it.Hash); ok {
			answers[i], marks[i] = message.Sealed, m
		}
	}
	if *s.serving >= maxServing || !rsync.Lane(w.Lane).Valid() {
		for i := range answers {
			answers[i] = message.Failed
		}
		t.sendSoon(from, s, message.TypeDone, message.Done{Tree: t.name, Batch: w.Batch, Answers: answers}.Encode())
		return
	}
	*s.serving++
	t.background.Go(func() error {
		t.push(ctx, from, w, answers, marks)
		done := message.Done{Tree: t.name, Batch: w.Batch, Answers: answers}.Encode()
		err := t.sendPatiently(ctx, func() error { return t.node.hub.Send(from, message.TypeDone, done) })
		if err != nil && !errors.Is(err, session.ErrGone) && ctx.Err() == nil {
			t.node.hub.Drop(from, fmt.Errorf("answer a want: %w", err))
		}
		return t.ended(ctx, s)
	})
}

func (t *tree) ended(ctx context.Context, s *peerSession) error {
	// The session may be over; its count then belongs to nobody.
	if err := t.call(ctx, func() { *s.serving-- }); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// push sends the contents and looks at each source again: what moved meanwhile is
// left out and comes as its own change.
func (t *tree) push(ctx context.Context, to signature.NodeID, w message.Want, answers []message.Answer, marks []signature.StatMark) {
	var moved []signature.Path // since they were looked at: perhaps no event tells
	defer func() {
		if len(moved) > 0 {
			t.post(ctx, replica.Hinted{Paths: moved})
		}
	}()
	t.root.with(ctx, func(root *signature.Root) {
		var live, kept []int
		moved = moved[:0]
		for i := range answers {
			switch answers[i] {
			case message.Sealed:
				if m, ok := stat(root, w.Items[i].Path); ok && m.Same(marks[i]) {
					live = append(live, i)
					continue
				}
				answers[i] = message.NotHere
				kept = append(kept, i)
				moved = append(moved, w.Items[i].Path)
			case message.NotHere:
				kept = append(kept, i)
			}
		}
		if len(live) > 0 {
			err := t.pushFrom(ctx, to, w, root.Handle(), live)
			for _, i := range live {
				if m, ok := stat(root, w.Items[i].Path); !ok || !m.Same(marks[i]) {
					answers[i] = message.NotHere
					moved = append(moved, w.Items[i].Path)
				} else if err != nil {
					answers[i] = message.Failed
				} else {
					t.counts.contentsSent.Add(1)
					t.counts.bytesSent.Add(w.Items[i].Size)
				}
			}
		}
		if len(kept) > 0 {
			t.pushKept(ctx, to, w, root, kept, answers)
		}
	})
}

func (t *tree) pushFrom(ctx context.Context, to signature.NodeID, w message.Want, dir *os.File, which []int) error {
	names := make([]signature.Path, 0, len(which))
	for _, i := range which {
		names = append(names, w.Items[i].Path)
	}
	lane := rsync.Lane(w.Lane)
	t.counts.rsyncRuns.Add(1)
	began := time.Now()
	_, err := rsync.Send(ctx, rsync.SendSpec{
		Binary: t.node.rsync, Helper: t.node.helper("rsh"), Dir: dir, Lane: lane, Batch: batchName(w.Batch),
		Names: names, CompareDest: compareDest(lane), Logger: t.log,
	}, &pushConn{ctx: ctx, hub: t.node.hub, to: to, push: message.Push{Tree: t.name, Batch: w.Batch, Lane: w.Lane}})
	if err != nil && ctx.Err() == nil {
		t.log.Warn("push failed; the peer asks again", "peer", t.node.peerName(to), "paths", len(names), "err", err)
		return err
	}
	t.log.Debug("pushed", "peer", t.node.peerName(to), "paths", len(names), "took", time.Since(began))
	return err
}

// pushKept serves contents that only the conflict store or a snapshot has, from a
// folder in which they have the names they were asked for by.
func (t *tree) pushKept(ctx context.Context, to signature.NodeID, w message.Want, root *signature.Root, which []int, answers []message.Answer) {
	want := map[signature.Path]disk.Source{}
	for _, i := range which {
		if id, ok := t.kept.find(w.Items[i].Hash); ok {
			want[w.Items[i].Path] = disk.Source{Kept: id}
		} else if id, ok := t.snapshots.find(w.Items[i].Hash); ok {
			want[w.Items[i].Path] = disk.Source{Snapshot: id}
			defer t.snapshots.use(id)()
		}
	}
	if len(want) == 0 {
		return
	}
	d, err := t.openDisk(root)
	if err != nil {
		t.log.Warn("private folder cannot be opened", "err", err)
		return
	}
	defer d.Close()
	dir, found, err := d.Serve("serve-"+to.String()+"-"+batchName(w.Batch), want)
	if err != nil {
		t.log.Warn("kept contents cannot be served", "err", err)
		return
	}
	if dir == nil {
		return
	}
	defer dir.Close()
	var have []int
	for _, i := range which {
		if found[w.Items[i].Path] {
			have = append(have, i)
		}
	}
	if err := t.pushFrom(ctx, to, w, dir.File, have); err != nil {
		return
	}
	for _, i := range have {
		answers[i] = message.Sealed
		t.counts.contentsSent.Add(1)
		t.counts.bytesSent.Add(w.Items[i].Size)
	}
}
