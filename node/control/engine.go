package control

import (
	"context"
	"errors"

	"github.com/clsync/clsync/node/config"
)

// An Engine is the running node as seen from outside. Its methods may be called
// from many goroutines at once and return soon, also when the node is stuck. Names
// and paths in what it returns are raw bytes: this package escapes them.
type Engine interface {
	// Status says what is going on. Judge is run on what it returns.
	Status(ctx context.Context) (Status, error)
	// Health returns nil as long as the node's loops answer. The watchdog asks it.
	Health(ctx context.Context) error
	// Nodes returns all nodes ever admitted and not removed, this one first.
	Nodes(ctx context.Context) ([]Node, error)
	// RemoveNode takes a node out of the cluster for good.
	RemoveNode(ctx context.Context, name string) error
	// Conflicts returns what the conflict stores keep, newest first; of all trees
	// if tree is empty.
	Conflicts(ctx context.Context, tree string) ([]Conflict, error)
	// RestoreConflict puts a kept state back as a user's edit: at its own path if
	// to is empty, else at the path to of the same tree.
	RestoreConflict(ctx context.Context, tree, id, to string) error
	// Reload takes over what config.Diff calls live, and the key file's contents.
	Reload(ctx context.Context, c *config.Config) error
}

// Errors that an Engine returns for what the asker got wrong.
var (
	ErrNotFound = errors.New("not found")         // no such node, tree or conflict
	ErrRefused  = errors.New("refused as it is")  // asked for rightly, and cannot be done now
	ErrDenied   = errors.New("permission denied") // the asker may not
)
