package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"github.com/clsync/clsync/signature"
)

// MaxNodes bounds the registry: a member may invent names.
const MaxNodes = 4096

// seenEvery is how often the time a node was last seen is written to disk.
const seenEvery = time.Hour

var (
	// ErrOtherKey is returned for a second key under a known name.
	ErrOtherKey = errors.New("another key under a known name")
	// ErrOtherName is returned for a known key under a second name: a renamed
	// node, or a clone of one. Forget settles it.
	ErrOtherName = errors.New("another name for a known key")
	// ErrRemoved is returned for a node that an operator removed.
	ErrRemoved = errors.New("node was removed")
	// ErrNodesFull is returned when the registry has MaxNodes entries.
	ErrNodesFull = errors.New("too many known nodes")
	// ErrUnknownNode is returned for a name or ID that the registry does not have.
	ErrUnknownNode = errors.New("unknown node")
)

// A Node is one entry of the registry.
type Node struct {
	Name      string
	ID        signature.NodeID
	FirstSeen time.Time
	LastSeen  time.Time
	Removed   bool
}

// Nodes pins names to keys: the first key seen under a name is that node, until
// an operator removes it. It is kept in a file and may be used from many goroutines.
type Nodes struct {
	path string

	mu      sync.Mutex
	byID    map[signature.NodeID]*Node
	byName  map[string]*Node // of those not removed
	written time.Time        // when last-seen times were written
}

type nodeLine struct {
	Name      string    `json:"name"`
	ID        string    `json:"id"`
	FirstSeen time.Time `json:"first_seen"`
	LastSeen  time.Time `json:"last_seen"`
	Removed   bool      `json:"removed,omitempty"`
}

type nodeFile struct {
	Version int        `json:"version"`
	Nodes   []nodeLine `json:"nodes"`
}

// OpenNodes reads the registry; a missing file is an empty one. A damaged file is
// an error: starting empty would take back every removal.
func OpenNodes(path string) (*Nodes, error) {
	n := &Nodes{path: path, byID: map[signature.NodeID]*Node{}, byName: map[string]*Node{}}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return n, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open known nodes: %w", err)
	}
	var file nodeFile
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("open known nodes %s: %w", path, err)
	}
	if file.Version != 1 {
		return nil, fmt.Errorf("open known nodes %s: version %d, want 1", path, file.Version)
	}
	for _, l := range file.Nodes {
		id, err := signature.ParseNodeID(l.ID)
		if err == nil {
			err = CheckName(l.Name)
		}
		if err == nil && (n.byID[id] != nil || !l.Removed && n.byName[l.Name] != nil) {
			err = fmt.Errorf("%s stands in it twice", l.Name)
		}
		if err != nil {
			return nil, fmt.Errorf("open known nodes %s: %w", path, err)
		}
		n.put(&Node{Name: l.Name, ID: id, FirstSeen: l.FirstSeen, LastSeen: l.LastSeen, Removed: l.Removed})
	}
	return n, nil
}

func (n *Nodes) put(node *Node) {
	n.byID[node.ID] = node
	if !node.Removed {
		n.byName[node.Name] = node
	}
}

// Check tells whether a node may be talked to under that name. It notes nothing.
func (n *Nodes) Check(name string, id signature.NodeID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.check(name, id)
}

func (n *Nodes) check(name string, id signature.NodeID) error {
	if known := n.byID[id]; known != nil {
		if known.Removed {
			return fmt.Errorf("%w: %s (%s)", ErrRemoved, name, id)
		}
		if known.Name != name {
			return fmt.Errorf("%w: %s is known as %s, now says %s", ErrOtherName, id, known.Name, name)
		}
		return nil
	}
	if known := n.byName[name]; known != nil {
		return fmt.Errorf("%w: %s is %s, now comes with %s", ErrOtherKey, name, known.ID, id)
	}
	return CheckName(name)
}

// Admit checks a node as Check does, and notes a new one before it returns: from
// then on that name is that key's, also after a crash.
func (n *Nodes) Admit(now time.Time, name string, id signature.NodeID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.check(name, id); err != nil {
		return err
	}
	if known := n.byID[id]; known != nil {
		known.LastSeen = now
		if now.Sub(n.written).Abs() < seenEvery {
			return nil
		}
		return n.write(now)
	}
	if len(n.byID) >= MaxNodes {
		return fmt.Errorf("%w: %d", ErrNodesFull, len(n.byID))
	}
	n.put(&Node{Name: name, ID: id, FirstSeen: now, LastSeen: now})
	if err := n.write(now); err != nil {
		delete(n.byID, id)
		delete(n.byName, name)
		return err
	}
	return nil
}

// Remove bars the node of that name for good and frees the name for another key.
func (n *Nodes) Remove(now time.Time, name string) (signature.NodeID, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	node := n.byName[name]
	if node == nil {
		return signature.NodeID{}, fmt.Errorf("remove node: %w: %q", ErrUnknownNode, name)
	}
	node.Removed = true
	delete(n.byName, name)
	if err := n.write(now); err != nil {
		node.Removed = false
		n.byName[name] = node
		return signature.NodeID{}, err
	}
	return node.ID, nil
}

// Forget drops what is known of a node, its removal included: it may come back,
// under any name that is free.
func (n *Nodes) Forget(now time.Time, id signature.NodeID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	node := n.byID[id]
	if node == nil {
		return fmt.Errorf("forget node: %w: %s", ErrUnknownNode, id)
	}
	delete(n.byID, id)
	if !node.Removed {
		delete(n.byName, node.Name)
	}
	if err := n.write(now); err != nil {
		n.put(node)
		return err
	}
	return nil
}

// List returns all entries, by name.
func (n *Nodes) List() []Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.list()
}

func (n *Nodes) list() []Node {
	out := make([]Node, 0, len(n.byID))
	for _, node := range n.byID {
		out = append(out, *node)
	}
	slices.SortFunc(out, func(a, b Node) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return a.ID.Compare(b.ID)
	})
	return out
}

func (n *Nodes) write(now time.Time) error {
	file := nodeFile{Version: 1}
	for _, node := range n.list() {
		file.Nodes = append(file.Nodes, nodeLine{
			Name: node.Name, ID: node.ID.String(),
			FirstSeen: node.FirstSeen.UTC(), LastSeen: node.LastSeen.UTC(), Removed: node.Removed,
		})
	}
	text, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return fmt.Errorf("write known nodes: %w", err)
	}
	err = renameio.WriteFile(n.path, append(text, '\n'), 0o600)
	if err == nil {
		err = syncDir(filepath.Dir(n.path))
	}
	if err != nil {
		return fmt.Errorf("write known nodes: %w", err)
	}
	n.written = now
	return nil
}
