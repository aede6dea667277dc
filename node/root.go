package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/transfer/disk"
)

// rootCheck is how often a root that is gone is looked for, and one that is there
// is asked whether it still is.
const rootCheck = time.Second

// A rootGuard lets nobody work on a root that is not the tree's: an unmounted,
// emptied or swapped one deletes nothing anywhere (I6).
type rootGuard struct {
	dir    string
	config signature.LookConfig

	mu      sync.Mutex
	want    string                 // the marker; "" until the first root was taken
	now     signature.RootIdentity // of the root that is worked on
	reason  error                  // why nothing is worked on
	epoch   int                    // counts the roots that were taken
	changed chan struct{}          // closed when reason or epoch changes
}

func newRootGuard(dir string, cfg signature.LookConfig) *rootGuard {
	return &rootGuard{dir: dir, config: cfg, reason: errors.New("not looked at yet"), changed: make(chan struct{})}
}

// expect names the marker that the tree's root has; "" if it has none yet.
func (g *rootGuard) expect(marker string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.want = marker
}

// check takes the root that stands there, if it is the tree's, and otherwise notes
// why not.
func (g *rootGuard) check() error {
	id, err := g.identify()
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err == nil && g.want != "" && !id.Marked:
		err = fmt.Errorf("%s has no marker of this tree: not mounted, emptied, or another folder; mount it, or restore %s",
			signature.Quote(g.dir), signature.Quote(g.dir+"/"+signature.Private+"/tree"))
	case err == nil && g.want != "" && id.Marker != g.want:
		err = fmt.Errorf("%s is the root of another tree (marker %s, expected %s)",
			signature.Quote(g.dir), signature.Quote(id.Marker), signature.Quote(g.want))
	}
	switch {
	case err != nil:
		if g.reason == nil || g.reason.Error() != err.Error() {
			g.reason = err
			g.signal()
		}
	case g.reason != nil || id != g.now:
		g.reason, g.now, g.want = nil, id, id.Marker
		g.epoch++
		g.signal()
	}
	return g.reason
}

// identify returns the identity of what stands there, and marks a root that has no
// marker if the tree has none yet either.
func (g *rootGuard) identify() (signature.RootIdentity, error) {
	r, err := signature.OpenRoot(g.dir, g.config)
	if err != nil {
		return signature.RootIdentity{}, err
	}
	defer r.Close()
	id, err := r.Identity()
	if err != nil || id.Marked {
		return id, err
	}
	g.mu.Lock()
	fresh := g.want == ""
	g.mu.Unlock()
	if !fresh {
		return id, nil
	}
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return id, fmt.Errorf("draw a tree ID: %w", err)
	}
	if err := r.WriteMarker(hex.EncodeToString(b[:])); err != nil {
		return id, err
	}
	return r.Identity()
}

func (g *rootGuard) signal() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// state returns why nothing is worked on, the count of roots taken, and a channel
// that is closed at the next change.
func (g *rootGuard) state() (epoch int, changed <-chan struct{}, reason error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.epoch, g.changed, g.reason
}

// marker returns the tree's marker, once a root was taken.
func (g *rootGuard) marker() (string, uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.want, g.now.Mount
}

// peek returns the mount of whatever stands there, 0 if nothing does.
func (g *rootGuard) peek() uint64 {
	r, err := signature.OpenRoot(g.dir, g.config)
	if err != nil {
		return 0
	}
	defer r.Close()
	id, err := r.Identity()
	if err != nil {
		return 0
	}
	return id.Mount
}

// run keeps checking until ctx ends.
func (g *rootGuard) run(ctx context.Context) error {
	t := time.NewTicker(rootCheck)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			// The reason is kept for whoever asks.
			if err := g.check(); err != nil {
				continue
			}
		}
	}
}

// with waits for the tree's root, opens it and runs f on it. What f did counts only
// if with returns true: if the root was not the tree's at the end, f is run again
// once it is back. It returns false when ctx ends.
func (g *rootGuard) with(ctx context.Context, f func(*signature.Root)) bool {
	for ctx.Err() == nil {
		_, changed, reason := g.state()
		if reason != nil {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		if g.once(f) {
			return true
		}
	}
	return false
}

func (g *rootGuard) once(f func(*signature.Root)) bool {
	g.mu.Lock()
	want := g.now
	g.mu.Unlock()
	r, err := signature.OpenRoot(g.dir, g.config)
	if err == nil {
		defer r.Close()
		var id signature.RootIdentity
		if id, err = r.Identity(); err == nil && id != want {
			err = signature.ErrRootChanged
		}
	}
	if err == nil {
		f(r)
		err = r.StillThere(want)
	}
	if err == nil {
		return true
	}
	if g.check() == nil {
		// Another root of the same tree came between: the caller runs again.
		return false
	}
	return false
}

// openDisk opens the private side of a root for one piece of work.
func (t *tree) openDisk(r *signature.Root) (*disk.Tree, error) {
	return disk.Open(r, disk.Config{Ignored: func(p signature.Path) bool { return t.ignored(p, false) }, Node: t.node.name})
}
