package node

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/clsync/clsync/node/replica"
	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/transfer/disk"
)

// sweepEvery is how often what rests in the grace pool is tried to be let go.
const sweepEvery = 2 * time.Second

// caseName names the folder of the conflict store in which a state is kept: by the
// version it was, or by its content where no version ever named it.
func caseName(p signature.Path, v signature.Version) string {
	if v.Dot.IsZero() {
		return "local-" + hex.EncodeToString(v.Sig.Hash.Sum[:8])
	}
	return v.Dot.Actor.Node.String()[:12] + "-" + hex.EncodeToString([]byte{
		byte(v.Dot.Seq >> 40), byte(v.Dot.Seq >> 32), byte(v.Dot.Seq >> 24), byte(v.Dot.Seq >> 16), byte(v.Dot.Seq >> 8), byte(v.Dot.Seq)})
}

// note says for people what a kept state was.
func (t *tree) note(p signature.Path, kept, winner signature.Version) disk.Note {
	n := disk.Note{Stamp: kept.Stamp, Why: "changed at the same time elsewhere; the newest is shown", Node: t.node.name}
	if kept.Dot.IsZero() {
		n.Why = "changed here on a receive-only node"
		return n
	}
	n.Version, n.Node = kept.Dot.String(), t.node.peerName(kept.Dot.Actor.Node)
	return n
}

// keep puts a loser's content into the conflict store, or says whether it is there.
func (t *tree) keep(ctx context.Context, task replica.StoreTask) {
	if task.Asks() {
		t.askKept(ctx, task)
		return
	}
	var c disk.Content
	if task.Version.Sig.Type == signature.File {
		c.Batch, c.Staged = batchName(task.Staged.Batch), string(task.Staged.Path)
	}
	var err error
	ok := t.root.with(ctx, func(r *signature.Root) {
		var d *disk.Tree
		if d, err = t.openDisk(r); err != nil {
			return
		}
		defer d.Close()
		var kept disk.Conflict
		kept, err = d.KeepCopy(ctx, task.Path, task.Version.Sig.Bare(), c, caseName(task.Path, task.Version),
			t.note(task.Path, task.Version, signature.Version{}))
		if err == nil {
			t.kept.add(kept.ID, kept.Sig.Hash)
		}
	})
	if !ok {
		return
	}
	if err != nil {
		t.log.Warn("conflict cannot be decided: its contents cannot be kept; tried again", "path", task.Path.Quote(), "err", err)
	}
	t.post(ctx, replica.Stored{Task: task, OK: err == nil})
}

// askKept answers whether the conflict store has a content. What it has is remembered;
// only that it is still there is asked of the disk: after a partition there are as many
// questions as there are entries.
func (t *tree) askKept(ctx context.Context, task replica.StoreTask) {
	found := false
	for id, ok := t.kept.find(task.Version.Sig.Hash); ok; id, ok = t.kept.find(task.Version.Sig.Hash) {
		var err error
		if !t.root.with(ctx, func(r *signature.Root) { err = t.stillKept(r, id) }) {
			return
		}
		if found = err == nil; found {
			break
		}
		if !errors.Is(err, disk.ErrNoConflict) {
			t.log.Warn("conflict store cannot be read; its content is fetched", "path", task.Path.Quote(), "err", err)
			break
		}
		// An operator has taken it away; another entry may have the same content.
		t.kept.remove(id, task.Version.Sig.Hash)
		t.findKept(ctx)
	}
	t.post(ctx, replica.Stored{Task: task, OK: found})
}

func (t *tree) stillKept(r *signature.Root, id string) error {
	d, err := t.openDisk(r)
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = d.Conflict(id)
	return err
}

// release removes a batch of which nothing is needed any more.
func (t *tree) release(ctx context.Context, batch uint64) {
	t.root.with(ctx, func(r *signature.Root) {
		d, err := t.openDisk(r)
		if err == nil {
			defer d.Close()
			err = d.RemoveBatch(batchName(batch))
		}
		if err != nil {
			t.log.Warn("staging cannot be cleared; done at the next start", "err", err)
		}
	})
}

// tidy clears what an earlier life has left, and brings to an end what a crash has
// interrupted, before anything new is begun.
func (t *tree) tidy(ctx context.Context) {
	t.root.with(ctx, func(r *signature.Root) {
		d, err := t.openDisk(r)
		if err != nil {
			t.log.Error("private folder cannot be opened", "err", err)
			return
		}
		defer d.Close()
		if err := d.Sweep(func(string) bool { return false }); err != nil {
			t.log.Warn("staging cannot be cleared", "err", err)
		}
	})
	t.sweep(ctx)
	t.findKept(ctx)
}

// sweep lets go of what rests in the grace pool, if nobody writes to it any more.
func (t *tree) sweep(ctx context.Context) {
	t.root.with(ctx, func(r *signature.Root) {
		d, err := t.openDisk(r)
		if err != nil {
			t.log.Warn("private folder cannot be opened", "err", err)
			return
		}
		defer d.Close()
		swept, err := d.SweepGrace(ctx)
		if err != nil {
			t.log.Warn("grace pool", "err", err)
		}
		for _, c := range swept.Kept {
			t.log.Warn("written to after it was replaced; kept in the conflict store", "path", c.Path.Quote(), "id", c.ID)
			t.kept.add(c.ID, c.Sig.Hash)
		}
		t.resting.Store(int64(swept.Resting))
	})
}

// keptStates remembers what the conflict store holds, so that a content is found
// without reading it all.
type keptStates struct {
	mu     sync.Mutex
	states map[string]bool
	files  map[signature.Hash]string
}

func (k *keptStates) add(id string, h signature.Hash) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.states == nil {
		k.states, k.files = map[string]bool{}, map[signature.Hash]string{}
	}
	k.states[id] = true
	if h.Algorithm != signature.NoHash {
		k.files[h] = id
	}
}

func (k *keptStates) find(h signature.Hash) (id string, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	id, ok = k.files[h]
	return id, ok
}

// remove forgets what an operator has taken away.
func (k *keptStates) remove(id string, h signature.Hash) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.states, id)
	if k.files[h] == id {
		delete(k.files, h)
	}
}

func (k *keptStates) count() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return int64(len(k.states))
}

// findKept reads the conflict store, once.
func (t *tree) findKept(ctx context.Context) {
	t.root.with(ctx, func(r *signature.Root) {
		d, err := t.openDisk(r)
		if err != nil {
			return // tidy has said so
		}
		defer d.Close()
		kept, err := d.Conflicts()
		if err != nil {
			t.log.Warn("conflict store cannot be read", "err", err)
			return
		}
		for _, c := range kept {
			t.kept.add(c.ID, c.Sig.Hash)
		}
	})
}

// conflicts lists the conflict store, newest first.
func (t *tree) conflicts(ctx context.Context) ([]disk.Conflict, error) {
	var kept []disk.Conflict
	var err error
	t.root.with(ctx, func(r *signature.Root) {
		var d *disk.Tree
		if d, err = t.openDisk(r); err != nil {
			return
		}
		defer d.Close()
		kept, err = d.Conflicts()
	})
	slices.SortFunc(kept, func(a, b disk.Conflict) int { return int(min(1, max(-1, b.Note.When-a.Note.When))) })
	return kept, err
}
