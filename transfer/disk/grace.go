package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// settle lets go of what an item has displaced: into the conflict store if it is
// to be kept or if somebody has written to it since, else for good. While somebody
// may still write to it, it rests in the run's folder.
//
// WINDOW: who has resolved the name before the switch, and opens what it led to
// only after it was let go of, writes to a file without a name.
func (r *run) settle(ctx context.Context, it *item) {
	if it.holds != holdsTheirs {
		return
	}
	// What could neither be put back nor kept, the sweep will try again. And who has
	// waited for the lease is perhaps not even awake yet.
	if !it.verified || it.broken {
		it.out.Resting = true
		return
	}
	kept, err := r.t.letGo(ctx, r.dir, it.name, it.Apply, it.displaced, r.whole)
	switch {
	case errors.Is(err, errBusy):
		it.out.Resting = true
	case err != nil:
		it.out.Resting = true
		it.out.Err = errors.Join(it.out.Err, err)
	default:
		it.holds, it.out.Kept = holdsNothing, kept
	}
}

// keepTheirs puts what an item has displaced, and what nobody had seen before,
// into the conflict store.
func (r *run) keepTheirs(ctx context.Context, it *item, why string) error {
	note := it.Note
	note.Version, note.Why = "", why
	kept, err := r.t.keep(ctx, r.dir, it.name, signature.Signature{}, unseen, it.Path, note, r.whole)
	if err != nil {
		it.holds, it.verified = holdsTheirs, false
		return err
	}
	it.holds, it.out.Kept = holdsNothing, kept
	return nil
}

// letGo ends the rest of a displaced object; errBusy if a writer still has it. If
// mark still holds, it is what it was when it was displaced; else it is read.
func (t *Tree) letGo(ctx context.Context, dir *os.File, name string, a Apply, mark signature.StatMark, whole bool) (string, error) {
	pin, err := pinAt(dir, name)
	if err != nil {
		return "", err
	}
	defer pin.Close()
	now, err := signature.Mark(pin)
	if err != nil {
		return "", err
	}
	kind := signature.TypeOf(now.Mode)
	l, err := hold(pin, kind)
	if err != nil {
		return "", err
	}
	defer l.release()
	late := false
	if now, err = signature.Mark(pin); err != nil {
		return "", err
	}
	if !now.Same(mark) && kind != signature.Folder {
		sig, _, err := t.root.Read(ctx, pin)
		if err != nil {
			return "", err
		}
		late = sig != a.Expect.Bare()
	}
	switch {
	case late:
		note := a.Note
		note.Version, note.Why = "", "written to after it was replaced"
		return t.keep(ctx, dir, name, signature.Signature{}, unseen, a.Path, note, whole)
	case a.Keep != "" && kind != signature.Folder:
		return t.keep(ctx, dir, name, a.Expect.Bare(), a.Keep, a.Path, a.Note, whole)
	case kind == signature.Folder:
		err := rmdir(dir, name)
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) { // ignored names fill it
			kase, note := ignored, a.Note
			note.Why = "removed with the ignored names in it"
			if a.Expect.Type != signature.Folder {
				kase, note.Why = unseen, "a local change came in between"
			}
			return t.keep(ctx, dir, name, signature.Signature{}, kase, a.Path, note, whole)
		}
		return "", err
	}
	return "", unlink(dir, name)
}

// restFor is how long what was displaced rests at least, for a writer who was held
// up by our lease to get hold of it.
var restFor = time.Second

// Swept is what SweepGrace found.
type Swept struct {
	Resting int        // entries that somebody may still write to
	Kept    []Conflict // entries that went into the conflict store
}

// SweepGrace lets go of what rests in the grace pool, as far as nobody can write
// to it any more, and brings to an end what a crash has interrupted. Runs that are
// at work are left alone, and so are those that ended a moment ago: it is to be
// called again as long as anything rests. What nobody had seen goes into the conflict store, and
// so does what no manifest explains.
func (t *Tree) SweepGrace(ctx context.Context) (Swept, error) {
	var out Swept
	ids, err := list(t.dirs[grace])
	if err != nil {
		return out, fmt.Errorf("sweep grace pool: %w", err)
	}
	var errs []error
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		if err := t.sweepRun(ctx, id, &out); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return out, fmt.Errorf("sweep grace pool: %w", err)
	}
	return out, nil
}

func (t *Tree) sweepRun(ctx context.Context, id string, out *Swept) error {
	dir, err := openFolder(t.dirs[grace], id)
	if signature.IsAbsent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == unix.EWOULDBLOCK {
		return nil
	} else if err != nil {
		return fmt.Errorf("lock run %s: %w", id, err)
	}
	st, err := dir.Stat()
	if err != nil {
		return err
	}
	names, err := list(dir)
	if err != nil {
		return err
	}
	if age := time.Since(st.ModTime()); age >= 0 && age < restFor {
		out.Resting += max(0, len(names)-1) // the manifest is none
		return nil
	}
	items := readManifest(dir)
	left := 0
	var errs []error
	for _, name := range names {
		if name == manifest {
			continue
		}
		var a Apply
		if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < len(items) {
			a = items[n]
		}
		kept, err := t.sweepEntry(ctx, dir, name, a)
		switch {
		case errors.Is(err, errBusy):
			left++
			out.Resting++
		case err != nil:
			left++
			errs = append(errs, err)
		case kept != "":
			c, err := t.Conflict(kept)
			errs = append(errs, err)
			out.Kept = append(out.Kept, c)
		}
	}
	if left == 0 {
		errs = append(errs, dropRun(t.dirs[grace], dir, id))
	}
	return errors.Join(errs...)
}

// sweepEntry tells apart what was displaced, what was made ready, and what nobody
// knows.
func (t *Tree) sweepEntry(ctx context.Context, dir *os.File, name string, a Apply) (string, error) {
	if strings.HasSuffix(name, part) {
		return "", unlink(dir, name)
	}
	pin, err := pinAt(dir, name)
	if err != nil {
		return "", err
	}
	sig, _, err := t.root.Read(ctx, pin)
	pin.Close()
	if errors.Is(err, signature.ErrMoving) {
		return "", errBusy
	}
	if err != nil {
		return "", err
	}
	made := a.Target.Exists() && sig.SameContent(a.Target) && a.Content.MoveFrom == ""
	if made && sig != a.Expect.Bare() { // a crash came before the switch; peers have it
		return "", removeAll(dir, name)
	}
	return t.letGo(ctx, dir, name, a, signature.StatMark{}, false)
}
