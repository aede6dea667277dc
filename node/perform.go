package node

import (
	"context"
	"fmt"
	"time"

	"github.com/clsync/clsync/node/replica"
	"github.com/clsync/clsync/signature/index"
)

// perform carries out effects from top to bottom. What must be durable is, before
// anything is told or done.
func (t *tree) perform(ctx context.Context, now time.Time, fx replica.Effects) error {
	if len(fx.Ledger) > 0 {
		entries := make([]index.LedgerEntry, 0, len(fx.Ledger))
		for _, e := range fx.Ledger {
			entries = append(entries, index.LedgerEntry{Path: e.Path, Version: e.Version, Form: e.Form, Target: e.Target})
		}
		t.store.PutLedger(entries)
	}
	if len(fx.Cleared) > 0 {
		t.store.ClearLedger(fx.Cleared)
	}
	if err := t.save(ctx, now, fx.Save); err != nil {
		return err
	}
	for _, n := range fx.Notices {
		t.notice(n)
	}
	for _, id := range fx.Acks {
		t.ack(id)
	}
	for _, c := range fx.Cuts {
		t.sendCut(ctx, c)
	}
	if fx.Heads {
		t.sendHeads()
	}
	if len(fx.Apply) > 0 {
		t.jobs.push(func(ctx context.Context) { t.apply(ctx, fx.Apply) })
	}
	for _, s := range fx.Store {
		t.jobs.push(func(ctx context.Context) { t.keep(ctx, s) })
	}
	for _, f := range fx.Fetch {
		t.fetch(ctx, f)
	}
	for _, b := range fx.Release {
		t.jobs.push(func(ctx context.Context) { t.release(ctx, b) })
	}
	if len(fx.Looks) > 0 {
		t.looks.push(fx.Looks)
	}
	for _, p := range fx.Scans {
		select {
		case t.scans <- p:
		case <-ctx.Done():
		}
	}
	return nil
}

// save commits at once if it must, or when lazy writes have waited long enough. An
// index that cannot be written stops the tree, which says so, until it can.
func (t *tree) save(ctx context.Context, now time.Time, must bool) error {
	if !must {
		if t.overlay.IsZero() {
			t.overlay = now
		}
		if now.Sub(t.overlay) < lazyWrite {
			return t.store.Err()
		}
	}
	t.overlay = time.Time{}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := t.commit()
		if err == nil {
			if t.problem.Swap(nil) != nil {
				t.log.Info("index can be written again")
			}
			return nil
		}
		if t.store.Err() != nil {
			return t.store.Err()
		}
		why := "index cannot be written: " + err.Error()
		if t.problem.Swap(&why) == nil {
			t.log.Error("stopped: index cannot be written; make room or mend the disk, it goes on by itself", "err", err)
		}
		// Status must be answered while nothing else is.
		deadline := time.NewTimer(wait)
		for waiting := true; waiting; {
			select {
			case <-deadline.C:
				waiting = false
			case f := <-t.calls:
				f()
			case <-ctx.Done():
				deadline.Stop()
				return err
			}
		}
	}
}

// doJobs does the work on the disk that must be done one after the other.
func (t *tree) doJobs(ctx context.Context) error {
	t.tidy(ctx)
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.jobs.ready():
			if f, ok := t.jobs.pop(); ok {
				f(ctx)
			}
		case <-sweep.C:
			if t.resting.Load() > 0 {
				t.sweep(ctx)
			}
			t.sweepSnapshots(ctx)
		}
	}
}

func (t *tree) notice(n replica.Notice) {
	args := []any{"path", n.Path.Quote(), "what", n.Text}
	switch {
	case n.Kind == replica.NoticeConflict:
		t.log.Info("conflict", args...)
	case n.Kind == replica.NoticeVerdict:
		t.log.Warn("conflict decided", args...)
	case n.Peer.IsZero():
		t.log.Error("alarm", args...)
	case n.Path == "":
		t.node.distrust(n.Peer, fmt.Errorf("tree %s: %s", t.name, n.Text))
	default:
		t.node.distrust(n.Peer, fmt.Errorf("tree %s: %s: %s", t.name, n.Path.Quote(), n.Text))
	}
}
