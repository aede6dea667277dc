package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// Cases for what no verdict has displaced.
const (
	unseen  = "unseen"  // local changes that nobody had seen
	ignored = "ignored" // folders that were removed with the ignored names in them
)

const content = "content" // the kept object in an entry's folder

// ErrNoConflict is returned for an ID that the conflict store does not have.
var ErrNoConflict = errors.New("no such entry in the conflict store")

// keep moves an object out of a private folder into the conflict store. An object
// that has other names in the live tree is copied: it could be written to there.
// What it is, is read, unless sig says it.
func (t *Tree) keep(ctx context.Context, dir *os.File, name string, sig signature.Signature, kase string, p signature.Path, note Note, whole bool) (string, error) {
	pin, err := pinAt(dir, name)
	if err != nil {
		return "", fmt.Errorf("keep: %w", err)
	}
	defer pin.Close()
	mark, err := signature.Mark(pin)
	if err == nil && !sig.Exists() {
		sig, mark, err = t.root.Read(ctx, pin)
	}
	if errors.Is(err, signature.ErrMoving) {
		err = errBusy
	}
	if err != nil {
		return "", fmt.Errorf("keep: %w", err)
	}
	e, err := t.newEntry(kase, p, sig, note)
	if err != nil {
		return "", fmt.Errorf("keep: %w", err)
	}
	defer e.dir.Close()
	if sig.Type == signature.File && mark.Links > 1 {
		err = t.keepCopy(ctx, e, pin, sig)
		if err == nil {
			err = unlink(dir, name)
		}
	} else {
		err = rename(dir, name, e.dir, content, unix.RENAME_NOREPLACE)
	}
	if err == nil && !whole {
		err = e.sync(t)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("keep: %w", err), e.dropEmpty(t))
	}
	return e.id, nil
}

func (t *Tree) keepCopy(ctx context.Context, e *entry, pin *os.File, sig signature.Signature) error {
	src, err := signature.Reopen(pin, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := copyVerified(ctx, src, e.dir, content, sig); err != nil {
		return err
	}
	made, err := pinAt(e.dir, content)
	if err != nil {
		return err
	}
	defer made.Close()
	// What the disk cannot keep, the description beside it does.
	_, err = setFacts(t.root, made, sig.Facts)
	return errors.Join(err, syncPin(made))
}

// KeepLive moves what stands at a path, whatever it is, into the conflict store.
func (t *Tree) KeepLive(ctx context.Context, p signature.Path, kase string, note Note) (Conflict, error) {
	fail := func(err error) (Conflict, error) {
		return Conflict{}, fmt.Errorf("keep %s: %w", p.Quote(), err)
	}
	parent, base, err := t.root.OpenParent(p)
	if err != nil {
		return fail(err)
	}
	defer parent.Close()
	id, err := t.keep(ctx, parent, base, signature.Signature{}, kase, p, note, false)
	if err != nil {
		return fail(err)
	}
	if err := syncPin(parent); err != nil {
		return fail(err)
	}
	return t.Conflict(id)
}

// KeepCopy puts what sig says into the conflict store, with a content that was
// staged or that stands at another live path (CopyFrom); the live tree is not changed.
func (t *Tree) KeepCopy(ctx context.Context, p signature.Path, sig signature.Signature, c Content, kase string, note Note) (Conflict, error) {
	fail := func(err error) (Conflict, error) {
		return Conflict{}, fmt.Errorf("keep a copy of %s: %w", p.Quote(), err)
	}
	e, err := t.newEntry(kase, p, sig, note)
	if err != nil {
		return fail(err)
	}
	defer e.dir.Close()
	made, _, err := t.build(ctx, e.dir, content, sig, c)
	if err == nil {
		err = errors.Join(syncPin(made), made.Close(), e.sync(t))
	}
	if err != nil {
		return fail(errors.Join(err, t.RemoveConflict(e.id)))
	}
	return t.Conflict(e.id)
}

// Conflicts lists what is kept, by case. An entry whose description was lost
// in a crash has no path.
func (t *Tree) Conflicts() ([]Conflict, error) {
	cases, err := list(t.dirs[conflicts])
	if err != nil {
		return nil, fmt.Errorf("list conflicts: %w", err)
	}
	slices.Sort(cases)
	var out []Conflict
	for _, kase := range cases {
		dir, err := openFolder(t.dirs[conflicts], kase)
		if err != nil {
			return nil, fmt.Errorf("list conflicts: %w", err)
		}
		ids, err := list(dir)
		dir.Close()
		if err != nil {
			return nil, fmt.Errorf("list conflicts: %w", err)
		}
		slices.Sort(ids)
		for _, id := range ids {
			c, err := t.Conflict(kase + "/" + id)
			if errors.Is(err, ErrNoConflict) {
				continue // in the making, or left by a crash before it held anything
			}
			if err != nil {
				return nil, err
			}
			out = append(out, c)
		}
	}
	return out, nil
}

// Conflict returns one entry.
func (t *Tree) Conflict(id string) (Conflict, error) {
	dir, err := t.openEntry(id)
	if err != nil {
		return Conflict{}, fmt.Errorf("conflict %s: %w", signature.Quote(id), err)
	}
	defer dir.Close()
	pin, err := pinAt(dir, content)
	if signature.IsAbsent(err) {
		err = ErrNoConflict
	}
	if err != nil {
		return Conflict{}, fmt.Errorf("conflict %s: %w", signature.Quote(id), err)
	}
	pin.Close()
	kase, _, _ := strings.Cut(id, "/")
	c := Conflict{ID: id, Case: kase, File: filepath.Join(t.root.Dir(), signature.Private, conflicts, id, content)}
	if err := readMeta(dir, &c); err != nil {
		return Conflict{}, fmt.Errorf("conflict %s: %w", signature.Quote(id), err)
	}
	return c, nil
}

// OpenConflict opens a kept file or folder for reading.
func (t *Tree) OpenConflict(id string) (*os.File, error) {
	dir, err := t.openEntry(id)
	if err != nil {
		return nil, fmt.Errorf("open conflict %s: %w", signature.Quote(id), err)
	}
	defer dir.Close()
	pin, err := pinAt(dir, content)
	if err != nil {
		return nil, fmt.Errorf("open conflict %s: %w", signature.Quote(id), err)
	}
	defer pin.Close()
	f, err := signature.Reopen(pin, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("open conflict %s: %w", signature.Quote(id), err)
	}
	return f, nil
}

// RemoveConflict drops an entry for good.
func (t *Tree) RemoveConflict(id string) error {
	kase, name, err := splitID(id)
	if err != nil {
		return fmt.Errorf("remove conflict %s: %w", signature.Quote(id), err)
	}
	dir, err := openFolder(t.dirs[conflicts], kase)
	if signature.IsAbsent(err) {
		err = ErrNoConflict
	}
	if err != nil {
		return fmt.Errorf("remove conflict %s: %w", signature.Quote(id), err)
	}
	defer dir.Close()
	if err := removeAll(dir, name); err != nil {
		return fmt.Errorf("remove conflict %s: %w", signature.Quote(id), err)
	}
	if err := rmdir(t.dirs[conflicts], kase); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove conflict %s: %w", signature.Quote(id), err)
	}
	return nil
}
