package monitor

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// arm makes the watches at and beneath f match the disk. A folder that is gone
// leaves the trie.
func (b *recursive) arm(ctx context.Context, f *folder) {
	for stack := []*folder{f}; len(stack) > 0; {
		top := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if top.cut {
			continue
		}
		if ctx.Err() != nil {
			b.inbox.addAll(false) // the next run starts over
			return
		}
		stack = b.armOne(top, stack)
	}
	b.countUnwatched()
}

// armOne watches f and pushes what lies in it.
func (b *recursive) armOne(f *folder, stack []*folder) []*folder {
	rel := f.path()
	// What stands there may change between two steps. Then an event is on its way,
	// but to be sure of the watch it is worth another try.
	for range 3 {
		dir, id, err := openFolder(b.root, rel)
		if err != nil {
			return b.without(f, err, stack)
		}
		stack, err = b.watch(f, rel, id, stack)
		if errors.Is(err, errMoved) {
			dir.Close()
			continue
		}
		if err == nil {
			stack, err = b.list(f, dir, rel, stack)
		}
		dir.Close()
		if err != nil {
			return b.without(f, err, stack)
		}
		return stack
	}
	b.unwatchable(f)
	return stack
}

// without deals with a folder that could not be watched and listed: it is gone, or
// polled.
func (b *recursive) without(f *folder, err error, stack []*folder) []*folder {
	gone := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
	switch {
	case gone && f.up != nil:
		b.drop(f)
		f.detach()
	case gone: // the root: the owner sees that itself
		b.drop(f)
	case errors.Is(err, syscall.ENOSPC):
		b.full = true
		b.counters.limited.Store(true)
		if !b.warned {
			b.warned = true
			b.log.Warn("limit of watches reached, polling what is left: raise fs.inotify.max_user_watches",
				"watches", b.counters.watches.Load(), "every", b.pace)
		}
		b.unwatchable(f)
	case errors.Is(err, fsnotify.ErrClosed):
	default:
		b.log.Debug("folder not watched, polling", "path", f.path(), "err", err)
		b.unwatchable(f)
	}
	return stack
}

var errMoved = errors.New("moved meanwhile")

// watch sets the watch on f, which is the folder id.
func (b *recursive) watch(f *folder, rel string, id folderID, stack []*folder) ([]*folder, error) {
	// fsnotify 1.10.1 panics in a later Remove if a path that it watches is added
	// while a folder stands there that it watches under another name. So the old
	// watch always goes first; what is missed in between is in the list, or in the
	// deep hint that follows.
	watched := f.watched
	if watched && f.id != id {
		b.drop(f)
	} else if watched {
		b.unwatch(f)
	}
	// A folder can be watched under one name only, and fsnotify keeps the first. If
	// the other name is an old one, it has to go before this one is added.
	if g := b.folder.byID[id]; g != nil && g != f {
		if there, err := lookFolder(b.root, g.path()); err == nil && there == id {
			b.unwatchable(f) // a bind mount: it has both names
			return stack, nil
		}
		b.drop(g)
		b.sink.hint(g.path(), deep)
		b.inbox.add(g.path())
		if f.cut {
			return stack, nil // f was known beneath g, and will be looked at with it
		}
	}
	if b.watcher == nil || b.full && !watched {
		return stack, syscall.ENOSPC
	}
	if err := b.watcher.Add(b.absolute(rel)); err != nil {
		return stack, err
	}
	f.watched, f.id = true, id
	b.folder.byID[id] = f
	b.counters.watches.Add(1)
	if f.polled {
		f.polled = false
		delete(b.polled, f)
	}
	if now, err := lookFolder(b.root, rel); err != nil || now != id {
		b.drop(f)
		return stack, errMoved
	}
	return stack, nil
}

// list pushes the folders in f, and drops those known that are not there any more.
func (b *recursive) list(f *folder, dir *os.File, rel string, stack []*folder) ([]*folder, error) {
	if f.polled || f.cut {
		return stack, nil
	}
	seen := make(map[string]struct{})
	for {
		entries, err := dir.ReadDir(1024)
		for _, e := range entries {
			if !e.IsDir() || b.sink.skip(join(rel, e.Name())) {
				continue
			}
			seen[e.Name()] = struct{}{}
			stack = append(stack, f.kid(e.Name()))
		}
		if len(entries) == 0 || err != nil {
			if err != nil && !errors.Is(err, io.EOF) {
				return stack, err
			}
			break
		}
	}
	for name, k := range f.kids {
		if _, ok := seen[name]; !ok {
			b.sink.hint(k.path(), deep)
			b.drop(k)
			k.detach()
		}
	}
	return stack, nil
}

// unwatchable has f polled, with all beneath it.
func (b *recursive) unwatchable(f *folder) {
	b.drop(f)
	f.polled = true
	b.polled[f] = struct{}{}
}

// drop removes the watches of f and of all beneath it, and forgets the latter.
func (b *recursive) drop(f *folder) {
	for _, k := range f.kids {
		b.drop(k)
		k.cut = true
	}
	f.kids = nil
	if f.polled {
		f.polled = false
		delete(b.polled, f)
	}
	if f.watched {
		b.unwatch(f)
	}
}

// unwatch removes the watch of f alone.
func (b *recursive) unwatch(f *folder) {
	f.watched = false
	b.counters.watches.Add(^uint64(0))
	if b.folder.byID[f.id] == f {
		delete(b.folder.byID, f.id)
	}
	// It fails where the kernel has dropped the watch already, with the folder.
	_ = b.watcher.Remove(b.absolute(f.path()))
}

func (b *recursive) absolute(rel string) string { return absolute(b.root, rel) }

func absolute(root, rel string) string {
	if root == "/" {
		return root + rel
	}
	return join(root, rel)
}

// lookFolder tells which folder stands at rel.
func lookFolder(root, rel string) (folderID, error) {
	fi, err := os.Lstat(absolute(root, rel))
	if err != nil {
		return folderID{}, err
	}
	return idOf(fi), nil
}

func idOf(fi fs.FileInfo) folderID {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return folderID{}
	}
	return folderID{uint64(st.Dev), uint64(st.Ino)}
}
