package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// ErrNoReflink is returned where the file system cannot clone a file.
var ErrNoReflink = errors.New("file system cannot clone files")

// Seed clones the live file at p into a batch's staging folder, at the same path,
// to be patched in place.
func (t *Tree) Seed(ctx context.Context, batch string, p signature.Path) error {
	src, err := t.root.OpenBeneath(p, unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("seed %s: %w", p.Quote(), err)
	}
	defer src.Close()
	dir, err := t.stagedFolder(batch, p)
	if err != nil {
		return fmt.Errorf("seed %s: %w", p.Quote(), err)
	}
	defer dir.Close()
	dst, err := create(dir, p.Base())
	if err != nil {
		return fmt.Errorf("seed %s: %w", p.Quote(), err)
	}
	defer dst.Close()
	if err = clone(dst, src); err == nil {
		return nil
	}
	return fmt.Errorf("seed %s: %w", p.Quote(), errors.Join(err, unlink(dir, p.Base())))
}

// stagedFolder makes the folders of a batch in which p will stand.
func (t *Tree) stagedFolder(batch string, p signature.Path) (*os.File, error) {
	if err := checkName(batch); err != nil {
		return nil, err
	}
	dir, err := makeFolder(t.dirs[staging], batch)
	if err != nil {
		return nil, err
	}
	parent, ok := p.Parent()
	if !ok {
		return dir, nil
	}
	for name := range parent.Names() {
		next, err := makeFolder(dir, name)
		dir.Close()
		if err != nil {
			return nil, err
		}
		dir = next
	}
	return dir, nil
}

// HashStaged reads a staged file.
func (t *Tree) HashStaged(ctx context.Context, batch string, p signature.Path) (signature.Hash, int64, error) {
	dir, base, err := t.stagedParent(Content{Batch: batch, Staged: string(p)})
	if err != nil {
		return signature.Hash{}, 0, fmt.Errorf("read staged %s: %w", p.Quote(), err)
	}
	defer dir.Close()
	pin, err := pinAt(dir, base)
	if err != nil {
		return signature.Hash{}, 0, fmt.Errorf("read staged %s: %w", p.Quote(), err)
	}
	defer pin.Close()
	f, err := signature.Reopen(pin, unix.O_RDONLY)
	if err != nil {
		return signature.Hash{}, 0, fmt.Errorf("read staged %s: %w", p.Quote(), err)
	}
	defer f.Close()
	return signature.HashContent(ctx, f)
}

// A Source is what holds a content that the live tree has not: an entry of the
// conflict store or a snapshot.
type Source struct{ Kept, Snapshot string }

// A Serving is a folder in which contents stand under the paths they are asked for
// by. Close removes it.
type Serving struct {
	*os.File
	t  *Tree
	id string
}

// Close removes the folder; the contents stay where they are.
func (s *Serving) Close() error { return errors.Join(s.File.Close(), s.t.RemoveBatch(s.id)) }

// Serve makes a Serving: for each path, the source whose content is to stand there.
// Sources that are gone are left out; there is no Serving of none.
func (t *Tree) Serve(id string, want map[signature.Path]Source) (*Serving, map[signature.Path]bool, error) {
	found := map[signature.Path]bool{}
	for p, from := range want {
		err := t.linkFrom(id, p, from)
		if signature.IsAbsent(err) || errors.Is(err, ErrNoConflict) {
			continue // an operator has removed it, or a later snapshot has taken its place
		}
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("serve %s: %w", p.Quote(), err), t.RemoveBatch(id))
		}
		found[p] = true
	}
	if len(found) == 0 {
		return nil, nil, t.RemoveBatch(id)
	}
	dir, err := openFolder(t.dirs[staging], id)
	if err != nil {
		return nil, nil, fmt.Errorf("serve: %w", err)
	}
	return &Serving{dir, t, id}, found, nil
}

func (t *Tree) linkFrom(id string, p signature.Path, from Source) error {
	entry, err := t.openSource(from)
	if err != nil {
		return err
	}
	defer entry.Close()
	dir, err := t.stagedFolder(id, p)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Linkat(int(entry.Fd()), content, int(dir.Fd()), p.Base(), 0); err != nil {
		return &os.LinkError{Op: "link", Old: filepath.Join(entry.Name(), content), New: p.Quote(), Err: err}
	}
	return nil
}

func (t *Tree) openSource(from Source) (*os.File, error) {
	if from.Snapshot == "" {
		return t.openEntry(from.Kept)
	}
	if err := checkName(from.Snapshot); err != nil {
		return nil, err
	}
	return openFolder(t.dirs[staging], from.Snapshot)
}
