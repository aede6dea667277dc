// Package controltest has an engine that moves no file: what the command line and
// the control socket are tested with.
package controltest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/clsync/clsync/node/config"
	"github.com/clsync/clsync/node/control"
)

// An Engine answers with what it was given and keeps what it was asked to do.
type Engine struct {
	mu        sync.Mutex
	status    control.Status
	health    error
	nodes     []control.Node
	conflicts []control.Conflict
	asked     []string
}

var _ control.Engine = (*Engine)(nil)

// New returns an engine that answers with these.
func New(s control.Status, nodes []control.Node, conflicts []control.Conflict) *Engine {
	return &Engine{status: s, nodes: nodes, conflicts: conflicts}
}

// Asked returns what was asked of it so far, one line each.
func (e *Engine) Asked() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.asked)
}

// SetHealth says what Health returns from now on.
func (e *Engine) SetHealth(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.health = err
}

func (e *Engine) Status(context.Context) (control.Status, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status, nil
}

func (e *Engine) Health(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.health
}

func (e *Engine) Nodes(context.Context) ([]control.Node, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.nodes), nil
}

func (e *Engine) RemoveNode(_ context.Context, name string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.IndexFunc(e.nodes, func(n control.Node) bool { return n.Name == name })
	switch {
	case i < 0:
		return fmt.Errorf("%w: node %q", control.ErrNotFound, name)
	case e.nodes[i].Self:
		return fmt.Errorf("%w: a node cannot remove itself", control.ErrRefused)
	}
	e.nodes = slices.Delete(e.nodes, i, i+1)
	e.asked = append(e.asked, "remove "+name)
	return nil
}

func (e *Engine) Conflicts(_ context.Context, tree string) ([]control.Conflict, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []control.Conflict
	for _, c := range e.conflicts {
		if tree == "" || c.Tree == tree {
			out = append(out, c)
		}
	}
	return out, nil
}

func (e *Engine) RestoreConflict(_ context.Context, tree, id, to string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, fmt.Sprintf("restore %s %s %q", tree, id, to))
	return nil
}

func (e *Engine) Reload(_ context.Context, c *config.Config) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, fmt.Sprintf("reload %d trees", len(c.Trees)))
	return nil
}

// Sample is a status with a bit of everything in it.
func Sample(now time.Time) control.Status {
	return control.Status{
		Node: control.Self{
			ID: "0123456789abcdef0123456789abcdef", Name: "a", Cluster: "office", Version: "test",
			UptimeSeconds: 93784, Listen: "192.0.2.1:7370", Rsync: "3.5.0", Jail: "on",
		},
		Peers: []control.Peer{
			{ID: "11", Name: "b", Addr: "192.0.2.2:7370", Connected: true, Since: now.Add(-time.Hour)},
			{ID: "22", Name: "c", Addr: "192.0.2.3:7370", Since: now.Add(-12 * time.Minute), LastError: "dial tcp 192.0.2.3:7370: connection refused"},
		},
		Refused: []control.Refused{{Name: "evil\x1b[2J", Addr: "192.0.2.66:4711", Reason: "peer does not have this cluster's key", Since: now, Count: 3}},
		Trees: []control.Tree{
			{
				Name: "www", Path: "/srv/www", State: control.Running, Backend: "fanotify", Files: 7012, Pending: 1, PendingBytes: 5 << 20,
				Blocked:   []control.PathNote{{Path: "caf\xe9\n/x", Reason: "no space left on device", Since: now.Add(-time.Minute)}},
				Conflicts: 2,
				Counters:  control.Counters{VersionsMade: 42, BytesSent: 1 << 30},
				Peers: []control.Lag{
					{ID: "11", Name: "b", Connected: true},
					{ID: "22", Name: "c", Records: 17, Bytes: 3 << 20, Seconds: 700},
				},
			},
			{
				Name: "etc", Path: "/srv/etc", State: control.Stopped, Reason: "the root is empty and the index is not",
				Backend: "fsnotify", BackendReason: "fanotify: operation not permitted", Files: 900,
			},
		},
	}
}
