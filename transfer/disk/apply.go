package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/clsync/clsync/signature"
)

// failpoint is called between the steps of a switch, where tests play the local
// user who comes in between.
var failpoint = func(step string, p signature.Path) {}

var (
	errNoParent = errors.New("the folder above is missing")
	errNotEmpty = errors.New("the folder is not empty")
)

func outcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return Done
	case errors.Is(err, errBusy):
		return Busy
	case errors.Is(err, errNotEmpty):
		return NotEmpty
	case errors.Is(err, errNoParent):
		return NoParent
	case errors.Is(err, ErrUnexpected):
		return Moved
	}
	return Blocked
}

// holding says what lies under an item's name in the run's folder.
type holding uint8

const (
	holdsNothing holding = iota
	holdsOurs            // what was made ready
	holdsTheirs          // what was displaced
)

// An item is one path of a run.
type item struct {
	Apply
	n         int
	name      string // in the run's folder
	step      step
	holds     holding
	taken     bool               // ours was moved away from Content.MoveFrom
	ready     signature.StatMark // of what was made ready
	displaced signature.StatMark // of what was displaced, after it was verified
	verified  bool               // what was displaced is what was expected
	broken    bool               // somebody waits to write to what was displaced
	out       Applied
}

type inode struct{ dev, ino uint64 }

// knowledge of an inode: its signature, for as long as the mark holds.
type facts struct {
	mark signature.StatMark
	sig  signature.Signature
}

// A run is one Apply at work.
type run struct {
	t       *Tree
	dir     *os.File // grace/<id>, locked
	id      string
	whole   bool // syncfs rather than fsync
	resync  bool // something changed that has no descriptor to sync
	items   []*item
	known   map[inode]facts
	touched map[signature.Path]*touched
	folders map[signature.Path]*item // targets whose time is set last
	took    map[signature.Path]bool  // moved away by MoveFrom
	removed map[signature.Path]*item // deleted in this run
	errs    []error                  // of folders that are no targets
}

// Apply makes each path what its target says, in the order given, and returns what
// became of each. All contents are made ready before the first path is touched.
// When it returns, everything is durable, unless it returns an error: then the
// results say what was done, and nothing may be acknowledged.
func (t *Tree) Apply(ctx context.Context, batch []Apply, mode SyncMode) ([]Applied, error) {
	r, err := t.begin(batch, mode)
	if err != nil {
		return t.refuse(batch, err), err
	}
	defer r.dir.Close()
	for _, it := range r.items {
		if it.out.Err == nil {
			it.out.Err = r.prepare(ctx, it)
		}
	}
	if r.whole {
		if err := syncWhole(r.dir); err != nil {
			for _, it := range r.items {
				it.out.Err = errors.Join(it.out.Err, err)
			}
		}
	}
	for _, it := range r.items {
		if it.out.Err == nil {
			it.out.Err = r.apply(ctx, it)
		}
		if it.out.Err != nil {
			it.out.Err = errors.Join(it.out.Err, r.undo(ctx, it))
		}
	}
	after := context.WithoutCancel(ctx) // what was begun is brought to its end
	for _, it := range r.items {
		r.settle(after, it)
	}
	r.setFolderTimes()
	err = errors.Join(r.end(), r.sync())
	for _, it := range r.items {
		r.look(ctx, it)
	}
	return r.results(), err
}

func (t *Tree) begin(batch []Apply, mode SyncMode) (*run, error) {
	r := &run{
		t: t, whole: mode == SyncWhole || mode == SyncAuto && len(batch) >= wholeFrom,
		known: map[inode]facts{}, touched: map[signature.Path]*touched{}, folders: map[signature.Path]*item{},
		took: map[signature.Path]bool{}, removed: map[signature.Path]*item{},
	}
	for n, a := range batch {
		it := &item{Apply: a, n: n, name: strconv.Itoa(n), out: Applied{Path: a.Path}}
		it.step, it.out.Err = plan(a)
		r.items = append(r.items, it)
	}
	if err := r.open(); err != nil {
		return nil, fmt.Errorf("apply %d paths: %w", len(batch), err)
	}
	return r, nil
}

// refuse answers for a batch of which nothing could be begun.
func (t *Tree) refuse(batch []Apply, err error) []Applied {
	out := make([]Applied, len(batch))
	for i, a := range batch {
		out[i] = Applied{Path: a.Path, Outcome: Blocked, Err: err, Look: signature.Look{Path: a.Path, Err: err}}
	}
	return out
}

func (r *run) results() []Applied {
	out := make([]Applied, len(r.items))
	for i, it := range r.items {
		it.out.Outcome = outcomeOf(it.out.Err)
		if it.out.Err != nil {
			it.out.Err = fmt.Errorf("apply %s: %w", it.Path.Quote(), it.out.Err)
		}
		out[i] = it.out
	}
	return out
}

// step is what an apply amounts to.
type step uint8

const (
	stepVacant step = iota
	stepRmdir
	stepRemove
	stepCreate
	stepAmend
	stepReplace
)

func plan(a Apply) (step, error) {
	if _, err := signature.ParsePath(string(a.Path)); err != nil {
		return 0, err
	}
	if a.Keep != "" {
		if err := checkName(a.Keep); err != nil {
			return 0, err
		}
	}
	switch {
	case a.Target.Type == signature.Unknown:
		return 0, errors.New("no path is unknown")
	case a.Target.Type == signature.Absent && !a.Expect.Exists():
		return stepVacant, nil
	case a.Target.Type == signature.Absent && a.Expect.Type == signature.Folder:
		return stepRmdir, nil
	case a.Target.Type == signature.Absent:
		return stepRemove, nil
	case !a.Expect.Exists():
		return stepCreate, nil
	case a.Content.none() && a.Target.SameContent(a.Expect):
		return stepAmend, nil
	}
	return stepReplace, nil
}

// prepare makes ready what does not depend on the live tree's order of changes.
func (r *run) prepare(ctx context.Context, it *item) error {
	if it.step != stepCreate && it.step != stepReplace || it.Content.MoveFrom != "" || it.Content.LinkTo != "" {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	it.holds = holdsOurs // also if it fails halfway
	pin, unkept, err := r.t.build(ctx, r.dir, it.name, it.Target, it.Content)
	it.out.Unkept = unkept
	if err != nil {
		return err
	}
	defer pin.Close()
	return r.markReady(it, pin)
}

func (r *run) markReady(it *item, pin *os.File) (err error) {
	if !r.whole {
		if err := syncPin(pin); err != nil {
			return err
		}
	}
	it.ready, err = signature.Mark(pin)
	return err
}

func (r *run) apply(ctx context.Context, it *item) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch it.step {
	case stepVacant:
		return r.checkVacant(it)
	case stepRmdir:
		return r.removeFolder(ctx, it)
	case stepRemove:
		return r.remove(ctx, it)
	case stepCreate:
		return r.create(ctx, it)
	case stepAmend:
		return r.amend(ctx, it)
	default:
		return r.replace(ctx, it)
	}
}

// undo puts away what was made ready for nothing.
func (r *run) undo(ctx context.Context, it *item) error {
	if it.holds != holdsOurs {
		return nil
	}
	it.holds = holdsNothing
	switch {
	case it.taken:
		return r.giveBack(context.WithoutCancel(ctx), it)
	case it.Content.Staged != "": // perhaps without all of its facts, but with its content
		if r.t.returnStaged(r.dir, it.name, it.Content) == nil {
			return nil
		}
	}
	return removeAll(r.dir, it.name)
}

// look takes the look after. A content that was verified on this very inode, and
// whose stat mark has not moved since, need not be read again.
func (r *run) look(ctx context.Context, it *item) {
	if it.out.Err == nil {
		ctx = context.WithoutCancel(ctx)
	}
	if pin, err := r.t.root.OpenBeneath(it.Path, oPath); err == nil {
		m, err := signature.Mark(pin)
		pin.Close()
		if k, ok := r.known[inode{m.Dev, m.Ino}]; ok && err == nil {
			it.out.Look = r.t.root.LookKnowing(ctx, it.Path, k.mark, k.sig.Hash)
			return
		}
	}
	it.out.Look = r.t.root.Look(ctx, it.Path, signature.Signature{}, signature.StatMark{})
}
