package monitor

// folders is the tree of folders that the recursive backend knows, as a trie of
// names, so that all beneath a renamed one is found at once.
type folders struct {
	root folder
	byID map[folderID]*folder
}

// A folder is watched, or polled, or about to be either.
type folder struct {
	up      *folder
	name    string
	kids    map[string]*folder
	id      folderID // of what is watched
	watched bool
	polled  bool
	cut     bool // not in the trie any more
}

// A folderID is device and inode: one folder, whatever its name.
type folderID struct{ dev, ino uint64 }

func newFolders() *folders { return &folders{byID: make(map[folderID]*folder)} }

// find returns the folder at rel, nil if none is known there.
func (t *folders) find(rel string) *folder {
	f := &t.root
	for rel != "" && f != nil {
		var name string
		name, rel = first(rel)
		f = f.kids[name]
	}
	return f
}

// first splits off the first name.
func first(rel string) (name, rest string) {
	for i := range len(rel) {
		if rel[i] == '/' {
			return rel[:i], rel[i+1:]
		}
	}
	return rel, ""
}

// path returns f's path relative to the root.
func (f *folder) path() string {
	size := -1
	for g := f; g.up != nil; g = g.up {
		size += len(g.name) + 1
	}
	if size < 0 {
		return ""
	}
	b := make([]byte, size)
	for g := f; g.up != nil; g = g.up {
		size -= len(g.name)
		copy(b[size:], g.name)
		if size--; size >= 0 {
			b[size] = '/'
		}
	}
	return string(b)
}

// kid returns the folder of that name in f, making it if it is new.
func (f *folder) kid(name string) *folder {
	if k, ok := f.kids[name]; ok {
		return k
	}
	if f.kids == nil {
		f.kids = make(map[string]*folder)
	}
	k := &folder{up: f, name: name}
	f.kids[name] = k
	return k
}

// detach takes f out of the trie. The root stays.
func (f *folder) detach() {
	if f.up != nil && !f.cut {
		delete(f.up.kids, f.name)
		f.cut = true
	}
}
