package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clsync/clsync/node/config"
	"github.com/clsync/clsync/node/replica"
	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/index"
	"github.com/clsync/clsync/transfer/message"
)

// A tree runs one replicated folder. run's goroutine owns core and store; all else
// that several goroutines touch is atomic, a channel, or guarded by itself.
type tree struct {
	node *Node
	name string
	cfg  atomic.Pointer[config.Tree]
	log  *slog.Logger
	root *rootGuard

	store *index.Store
	core  *replica.Core
	actor signature.Actor

	events chan replica.Event // from the workers; a full one makes them wait
	frames *frameQueue        // from the sessions
	calls  chan func()
	scans  chan signature.Path
	looks  *queue[[]replica.LookTask]
	big    *queue[replica.LookTask]
	jobs   *queue[func(context.Context)] // applies and stores, one after the other

	background errgroup.Group // fetches, serves and cuts: all end with ctx
	sessions   map[signature.NodeID]*peerSession
	backlog    atomic.Int64
	fetches    fetches
	monitor    atomic.Pointer[monitorState]
	counts     counts
	problem    atomic.Pointer[string] // why the index cannot be written
	kept       keptStates
	snapshots  snapshots
	resting    atomic.Int64 // in the grace pool
	overlay    time.Time    // since when lazy writes wait
	lastScan   time.Time
	opened     atomic.Bool // the index is open, core and store are there
	ready      atomic.Bool // the first scan is done
	notes      map[signature.NodeID]lagNote
}

// counts are what the shells count; the core counts what it decides.
type counts struct {
	contentsSent, bytesSent, rsyncRuns, overflows, scans atomic.Int64
}

type monitorState struct{ backend, reason string }

// inbound is one frame or change of session for a tree.
type inbound struct {
	from    signature.NodeID
	up      bool
	down    bool
	typ     byte
	payload []byte
}

// A peerSession is what the tree's goroutine keeps of a session.
type peerSession struct {
	open    bool // the peer has sent its head: it has the tree
	nextCut uint64
	sending uint64              // the cut under way, 0 if none
	stream  *cutStream          // the cut that is sent in the background, if any was
	known   signature.Knowledge // as the peer's last head says
	taking  *cutIn
	held    *heldCut
	acks    uint64 // the cut of the peer to be acked
	serving *int   // wants that are served; outlives a beginning of the tree anew
	outbox  outbox
	begins  int
	rogue   bool // it broke the protocol; nothing more of it is looked at
}

// A cutIn is a cut of which not all pages are here yet.
type cutIn struct {
	id       uint64
	next     uint64
	listings []signature.Listing
	dots     signature.Knowledge // the greatest listed, per actor
	weight   int                 // in memory, about
}

// lazyWrite is how long marks that need not be durable may wait to be written.
const lazyWrite = 5 * time.Second

func newTree(n *Node, c *config.Tree) *tree {
	t := &tree{
		node: n, name: c.Name, log: n.log.With("tree", c.Name),
		events:   make(chan replica.Event, 256),
		frames:   newFrameQueue(),
		calls:    make(chan func()),
		scans:    make(chan signature.Path, 1),
		looks:    newQueue[[]replica.LookTask](),
		big:      newQueue[replica.LookTask](),
		jobs:     newQueue[func(context.Context)](),
		sessions: map[signature.NodeID]*peerSession{},
		notes:    map[signature.NodeID]lagNote{},
	}
	t.cfg.Store(c)
	t.root = newRootGuard(c.Path, signature.LookConfig{SELinux: c.SELinux})
	return t
}

func (t *tree) ignored(p signature.Path, folder bool) bool {
	return t.cfg.Load().Rules.Ignored(p, folder)
}

// openIndex opens what is remembered of the tree. The actor goes on only if it can
// be proven that this is the index it wrote last; otherwise it is a new one, so that
// no dot is used twice (I11).
func (t *tree) openIndex(ctx context.Context) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	dir := t.node.stateDir("trees", t.name)
	// The marker is in the index, and the mount in the index's proof: look at the
	// root first, whatever it is.
	mount := t.root.peek()
	t.store, err = index.Open(dir, index.Proof{BootID: boot, Mount: mount})
	if err != nil {
		return err
	}
	found, meta := t.store.Found(), t.store.Meta()
	if found.State == index.Damaged {
		t.log.Warn("index was damaged and is begun anew; contents on disk are kept", "err", found.Reason, "aside", found.Aside)
	}
	t.root.expect(meta.TreeID)
	t.actor = meta.Actor
	if !found.Continuous || t.actor.Node != t.node.id {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return fmt.Errorf("draw an incarnation: %w", err)
		}
		t.actor = signature.Actor{Node: t.node.id, Incarnation: binary.BigEndian.Uint64(b[:])}
		meta.Reserved = 0
	}
	var ledger []replica.LedgerEntry
	t.store.Ledger(func(e index.LedgerEntry) bool {
		ledger = append(ledger, replica.LedgerEntry{Path: e.Path, Version: e.Version, Form: e.Form, Target: e.Target})
		return true
	})
	t.core = replica.New(replica.Config{
		Self: t.actor, ReceiveOnly: t.cfg.Load().ReceiveOnly, Delay: time.Duration(t.cfg.Load().Delay),
		Ignored: t.ignored,
	}, t.store, replica.Start{Seq: meta.Reserved, Knowledge: meta.Knowledge, Ledger: ledger, Batch: t.fetches.latest()})
	t.log.Info("index", "state", found.State.String(), "continued", found.Continuous, "actor", t.actor.String(), "paths", t.store.Len())
	return t.store.Err()
}

// run runs the tree until ctx ends. The index is closed in order.
func (t *tree) run(ctx context.Context) (err error) {
	if err := t.openIndex(ctx); err != nil {
		err = fmt.Errorf("tree %s: %w", t.name, err)
		if t.store != nil { // its lock would keep the next run out
			err = errors.Join(err, t.store.Close())
		}
		return err
	}
	t.opened.Store(true)
	defer func() { err = errors.Join(err, t.store.Close()) }()
	if err := t.root.check(); err != nil {
		t.log.Warn("stopped: nothing is replicated until the root is back", "err", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.root.run(ctx) })
	g.Go(func() error { return t.watch(ctx) })
	g.Go(func() error { return t.lookAll(ctx) })
	g.Go(func() error { return t.lookBig(ctx) })
	g.Go(func() error { return t.scanAll(ctx) })
	g.Go(func() error { return t.doJobs(ctx) })
	g.Go(func() error { return t.loop(ctx) })
	err = g.Wait()
	return errors.Join(err, t.background.Wait())
}

// loop is the goroutine that owns core and store.
func (t *tree) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	epoch := 0
	_, changed, reason := t.root.state()
	// Peers that were there before this run are told that the tree begins; of later
	// ones the router tells.
	for _, id := range t.node.connected() {
		t.inbound(ctx, inbound{from: id, up: true})
	}
	for {
		var ev replica.Event
		select {
		case <-ctx.Done():
			return t.last()
		case ev = <-t.events:
		case <-t.frames.ready():
			in, ok := t.frames.pop()
			if !ok {
				continue
			}
			if ev = t.inbound(ctx, in); ev == nil {
				continue
			}
		case f := <-t.calls:
			f()
			continue
		case <-changed:
			var now int
			var was = reason
			now, changed, reason = t.root.state()
			switch {
			case reason != nil:
				t.log.Warn("stopped: nothing is replicated until the root is back", "err", reason)
				continue
			case was != nil && epoch > 0:
				t.log.Info("resumed: the root is back")
			}
			if now == epoch {
				continue
			}
			epoch = now
			continue // the monitor is armed anew and asks for a scan
		case <-timer.C:
			ev = replica.Tick{}
		}
		wake, err := t.step(ctx, ev)
		if err != nil {
			return err
		}
		for _, ev := range t.confirmed(time.Now()) {
			if wake, err = t.step(ctx, ev); err != nil {
				return err
			}
		}
		for id, s := range t.sessions {
			t.flush(id, s)
		}
		d := time.Second
		if !wake.IsZero() {
			d = max(0, min(d, time.Until(wake)))
		}
		timer.Reset(d)
	}
}

// last writes what still waits, at the end.
func (t *tree) last() error { return t.commit() }

func (t *tree) step(ctx context.Context, ev replica.Event) (time.Time, error) {
	now := time.Now()
	if t.ready.Load() && t.lastScan.IsZero() {
		t.lastScan = now // the first one has just ended
	}
	if _, ok := ev.(replica.Tick); ok && t.ready.Load() && now.Sub(t.lastScan) > time.Duration(t.cfg.Load().ScanInterval) {
		t.lastScan = now
		ev = replica.Hinted{Paths: []signature.Path{""}, Deep: true}
	}
	fx := t.core.Step(now, ev)
	t.backlog.Store(int64(t.core.Backlog()))
	if err := t.perform(ctx, now, fx); err != nil {
		return time.Time{}, err
	}
	return fx.Wake, nil
}

// commit makes durable what the core wrote.
func (t *tree) commit() error {
	meta := t.store.Meta()
	meta.Actor, meta.Reserved, meta.Knowledge = t.actor, t.core.Seq(), t.core.Knowledge()
	meta.TreeID, _ = t.root.marker()
	return t.store.Commit(meta)
}

// call runs f in the tree's goroutine and waits for it.
func (t *tree) call(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case t.calls <- func() { defer close(done); f() }:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// post hands an event to the tree's goroutine.
func (t *tree) post(ctx context.Context, ev replica.Event) {
	select {
	case t.events <- ev:
	case <-ctx.Done():
	}
}

// fetches are the batches that this node has asked for and that are under way.
type fetches struct {
	mu   sync.Mutex
	run  map[uint64]*receiving
	last uint64 // the latest batch
}

func (t *tree) head() message.Head {
	return message.Head{Tree: t.name, Known: t.core.Knowledge(), Landed: t.core.Landed(), ReceiveOnly: t.cfg.Load().ReceiveOnly}
}
