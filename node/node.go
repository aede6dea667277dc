package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clsync/clsync/gossip"
	"github.com/clsync/clsync/node/config"
	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/wire"
	"github.com/clsync/clsync/transfer/message"
	"github.com/clsync/clsync/transfer/rsync"
	"github.com/clsync/clsync/transfer/session"
	"github.com/clsync/clsync/transfer/trust"
)

// A Node is one running daemon.
type Node struct {
	log      *slog.Logger
	name     string
	id       signature.NodeID
	program  string // our own binary, for rsync's remote shell and the jail
	release  string
	started  time.Time
	identity *trust.Identity
	nodes    *trust.Nodes
	hub      *session.Hub
	cluster  *gossip.Cluster
	rsync    string
	version  rsync.Version
	jail     rsync.JailMode

	mu      sync.Mutex
	cfg     *config.Config
	trees   map[string]*slot
	peers   map[signature.NodeID]*peerState
	refused map[string]*refusal
	batches map[string]uint64  // the latest of each tree
	run     func(*config.Tree) // starts a tree; set while the node runs
}

// A slot is a configured tree: the run of it that is under way, and why the last
// one ended.
type slot struct {
	cfg    *config.Tree
	tree   *tree
	err    error
	cancel context.CancelFunc
	done   chan struct{}
}

type peerState struct {
	name, addr string
	connected  bool
	since      time.Time
	err        error
}

type refusal struct {
	name, addr, reason string
	since              time.Time
	count              int64
}

// treeRetry is how long a tree whose run has failed rests before the next one.
const treeRetry = 2 * time.Second

// New makes a node and opens its sockets. Run starts it.
func New(c *config.Config, log *slog.Logger, release string) (*Node, error) {
	n := &Node{
		log: log, name: c.Name, cfg: c, release: release, started: time.Now(),
		trees: map[string]*slot{}, peers: map[signature.NodeID]*peerState{}, refused: map[string]*refusal{},
		batches: map[string]uint64{},
	}
	var err error
	if n.program, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("find our own program: %w", err)
	}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	keys, err := trust.ReadClusterKeys(c.KeyFile)
	if err != nil {
		return nil, err
	}
	key, err := trust.LoadNodeKey(c.NodeKey())
	if err != nil {
		return nil, err
	}
	if n.identity, err = trust.NewIdentity(c.Cluster, c.Name, key, keys); err != nil {
		return nil, err
	}
	n.id = n.identity.ID()
	if n.nodes, err = trust.OpenNodes(filepath.Join(c.StateDir, "nodes.json")); err != nil {
		return nil, err
	}
	if err := n.admitSelf(); err != nil {
		return nil, err
	}
	if err := n.probe(c); err != nil {
		return nil, err
	}
	n.hub, err = session.New(session.Config{
		Identity: n.identity, Nodes: n.nodes, Listen: c.Listen, Hello: n.hello, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	if n.cluster, err = gossip.New(n.gossipConfig(c, keys)); err != nil {
		return nil, errors.Join(err, n.hub.Close())
	}
	return n, nil
}

// admitSelf pins our own name to our own key, so that a second node under it is
// refused like any other. A node may be renamed; it may not take another's name.
func (n *Node) admitSelf() error {
	err := n.nodes.Admit(time.Now(), n.name, n.id)
	if errors.Is(err, trust.ErrOtherName) {
		if err = n.nodes.Forget(time.Now(), n.id); err == nil {
			err = n.nodes.Admit(time.Now(), n.name, n.id)
		}
	}
	if errors.Is(err, trust.ErrOtherKey) {
		return fmt.Errorf("%w: %s is another node of this cluster; give this one a name of its own, or clsync nodes remove %s if that node is gone", err, n.name, n.name)
	}
	return err
}

// probe finds rsync and tries the jail, before anything depends on them.
func (n *Node) probe(c *config.Config) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var err error
	if n.version, err = rsync.Probe(ctx, c.Rsync); err != nil {
		return err
	}
	n.rsync = n.version.Path
	mode := map[config.Jail]rsync.JailMode{config.JailAuto: rsync.Auto, config.JailOff: rsync.Off, config.JailRequire: rsync.Require}[c.Jail]
	n.jail, err = rsync.ResolveJail(ctx, mode, n.rsync, n.helper("jail"), c.StateDir, n.log)
	return err
}

func (n *Node) helper(verb string) []string { return []string{n.program, verb} }

func (n *Node) gossipConfig(c *config.Config, keys trust.Keys) gossip.Config {
	g := gossip.Config{
		ID: n.id, Name: c.Name, Cluster: c.Cluster, SessionPort: port(n.hub.Addr()),
		Listen: c.Gossip.Listen, Advertise: host(c.Advertise), Seeds: c.Gossip.Seeds,
		Keys: keys.Gossip(c.Cluster), BeaconKeys: keys.Beacon(c.Cluster), Version: n.release, Logger: n.log,
		Multicast: gossip.MulticastConfig{Off: !c.Multicast.Enabled, Group: c.Multicast.Group, Interfaces: c.Multicast.Interfaces},
	}
	for _, p := range c.Gossip.CIDRs {
		g.CIDRs = append(g.CIDRs, p.String())
	}
	if c.Gossip.Fast {
		g.Timing = gossip.Fast
	}
	return g
}

// stateDir names a folder in the state folder.
func (n *Node) stateDir(elem ...string) string {
	return filepath.Join(append([]string{n.config().StateDir}, elem...)...)
}

func (n *Node) config() *config.Config {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cfg
}

// hello tells a peer which protocol we speak.
func (n *Node) hello() []byte {
	w := wire.NewWriter()
	w.Array(1)
	w.Uint(message.Version)
	return w.Frame()
}

func checkHello(b []byte) error {
	r := wire.NewReader(b)
	r.Tuple(1)
	if v := r.Uint(1 << 16); r.Err() == nil && v != message.Version {
		return fmt.Errorf("peer speaks protocol %d, this node %d: bring both to the same release", v, message.Version)
	}
	return r.Err()
}

// Run runs the node until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	sessions := make(chan session.Event, 64) // frames of up to 1 MiB each
	rumours := make(chan gossip.Event, 1024)
	var trees sync.WaitGroup
	n.mu.Lock()
	n.run = func(c *config.Tree) { n.startTree(ctx, c, &trees) }
	for i := range n.cfg.Trees {
		n.run(&n.cfg.Trees[i])
	}
	n.mu.Unlock()
	g.Go(func() error { return n.hub.Run(ctx, sessions) })
	g.Go(func() error { return n.cluster.Run(ctx, rumours) })
	g.Go(func() error { return n.route(ctx, sessions) })
	g.Go(func() error { return n.hear(ctx, rumours) })
	err := g.Wait()
	trees.Wait()
	return err
}

// startTree runs a tree and, if it fails, runs it again: a damaged index, say, is
// set aside by the next run. n.mu is held.
func (n *Node) startTree(ctx context.Context, c *config.Tree, wg *sync.WaitGroup) {
	ctx, cancel := context.WithCancel(ctx)
	s := &slot{cfg: c, cancel: cancel, done: make(chan struct{})}
	n.trees[c.Name] = s
	wg.Go(func() {
		defer close(s.done)
		for ctx.Err() == nil {
			n.mu.Lock()
			t := newTree(n, s.cfg)
			t.fetches.begin(n.batches[c.Name])
			s.tree = t
			var here []signature.NodeID
			for id, p := range n.peers {
				if p.connected {
					here = append(here, id)
				}
			}
			n.mu.Unlock()
			for _, id := range here { // whoever comes from now on is told of by up
				t.frames.push(inbound{from: id, up: true})
			}
			err := t.run(ctx)
			n.mu.Lock()
			s.tree, s.err = nil, err
			n.batches[c.Name] = t.fetches.latest()
			n.mu.Unlock()
			if ctx.Err() != nil {
				if err != nil && !errors.Is(err, context.Canceled) {
					n.log.Error("tree ended", "tree", c.Name, "err", err)
				}
				return
			}
			n.log.Error("tree stopped; begun again", "tree", c.Name, "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(treeRetry):
			}
		}
	})
}

// tree returns the run of a tree that is under way, if any.
func (n *Node) tree(name string) *tree {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.trees[name]; s != nil {
		return s.tree
	}
	return nil
}

func (n *Node) running() []*tree {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.runningLocked()
}

func (n *Node) runningLocked() []*tree {
	var all []*tree
	for _, s := range n.trees {
		if s.tree != nil {
			all = append(all, s.tree)
		}
	}
	return all
}

func (n *Node) connected() []signature.NodeID {
	n.mu.Lock()
	defer n.mu.Unlock()
	var ids []signature.NodeID
	for id, p := range n.peers {
		if p.connected {
			ids = append(ids, id)
		}
	}
	return ids
}

// route hands what sessions bring to the trees they are about.
func (n *Node) route(ctx context.Context, events <-chan session.Event) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev, ok := <-events:
			if !ok {
				return nil // the hub has ended; its error says why
			}
			switch ev := ev.(type) {
			case session.Up:
				n.up(ev.Peer)
			case session.Down:
				n.down(ev)
			case session.Frame:
				n.frame(ev)
			case session.Incoming:
				n.incoming(ev)
			case session.Refused:
				n.noteRefused(ev.Name, ev.Addr, ev.Reason)
			}
		}
	}
}

func (n *Node) up(p session.Peer) {
	if err := checkHello(p.Hello); err != nil {
		n.noteRefused(p.Name, p.Addr, err)
		n.hub.Drop(p.ID, err)
		return
	}
	n.mu.Lock()
	n.peers[p.ID] = &peerState{name: p.Name, addr: p.Addr, connected: true, since: time.Now()}
	trees := n.runningLocked()
	n.mu.Unlock()
	n.log.Info("peer connected", "peer", p.Name, "addr", p.Addr)
	for _, t := range trees {
		t.frames.push(inbound{from: p.ID, up: true})
	}
}

func (n *Node) down(ev session.Down) {
	n.mu.Lock()
	if p := n.peers[ev.ID]; p != nil {
		p.connected, p.since, p.err = false, time.Now(), ev.Err
	}
	n.mu.Unlock()
	n.log.Warn("peer lost", "peer", n.peerName(ev.ID), "err", ev.Err)
	if errors.Is(ev.Err, session.ErrFrame) {
		n.distrust(ev.ID, ev.Err)
	}
	for _, t := range n.running() {
		t.frames.push(inbound{from: ev.ID, down: true})
	}
}

func (n *Node) frame(ev session.Frame) {
	name, err := message.TreeOf(ev.Payload)
	if err != nil {
		n.rogue(ev.From, err)
		return
	}
	if t := n.tree(name); t != nil {
		t.frames.push(inbound{from: ev.From, typ: ev.Type, payload: ev.Payload})
	}
}

func (n *Node) incoming(ev session.Incoming) {
	p, err := message.DecodePush(ev.Header)
	if err != nil {
		n.reject(ev.Stream, "malformed header")
		n.rogue(ev.From, err)
		return
	}
	t := n.tree(p.Tree)
	if t == nil {
		n.reject(ev.Stream, "no such tree here")
		return
	}
	t.incoming(ev.From, p, ev.Stream)
}

func (n *Node) reject(s *session.Stream, why string) {
	if err := s.Reject(why); err != nil {
		n.log.Debug("stream not rejected", "peer", n.peerName(s.Peer()), "err", err)
	}
}

// hear follows gossip: it says where a peer may be met, and nothing else.
func (n *Node) hear(ctx context.Context, events <-chan gossip.Event) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-events:
			switch ev := ev.(type) {
			case gossip.Alive:
				n.hub.Meet(ev.Member.ID, ev.Member.SessionAddr)
			case gossip.Found:
				n.hub.Meet(ev.ID, ev.Addr)
			case gossip.Gone:
				n.log.Info("peer is gone", "peer", ev.Name, "left", ev.Left)
			case gossip.Head:
				n.hint(ev)
			case gossip.Conflict:
				n.noteRefused(ev.Name, ev.Addr, fmt.Errorf("node ID %s is in use at two addresses: a cloned machine; give one of them a key of its own", ev.ID))
			}
		}
	}
}

// hint takes a head heard by gossip from a node that has no session as the news
// that it is there.
func (n *Node) hint(ev gossip.Head) {
	n.mu.Lock()
	p := n.peers[ev.From]
	known := p != nil && p.connected
	n.mu.Unlock()
	if known {
		return
	}
	for _, m := range n.cluster.Members() {
		if m.ID == ev.From {
			n.hub.Meet(m.ID, m.SessionAddr)
		}
	}
}

// announce gossips a head in brief: a digest of what is known and landed.
func (n *Node) announce(tree string, h message.Head) {
	sum := sha256.Sum256(h.Encode())
	if err := n.cluster.Announce(tree, sum[:16]); err != nil {
		n.log.Debug("head not announced", "tree", tree, "err", err)
	}
}

// rogue ends the session of a peer that breaks the protocol, and reports it.
func (n *Node) rogue(id signature.NodeID, why error) {
	n.distrust(id, why)
	n.hub.Drop(id, why)
}

// distrust reports what a peer sent and was not taken in.
func (n *Node) distrust(id signature.NodeID, why error) {
	n.mu.Lock()
	var addr string
	if p := n.peers[id]; p != nil {
		addr = p.addr
	}
	n.mu.Unlock()
	n.log.Error("refused what a peer sent", "peer", n.peerName(id), "err", why)
	n.noteRefused(n.peerName(id), addr, why)
}

const maxRefused = 64

func (n *Node) noteRefused(name, addr string, why error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := name + "\x00" + addr
	if i := strings.LastIndexByte(addr, ':'); name == "" && i >= 0 {
		key = addr[:i] // a stranger's port changes with every try
	}
	r := n.refused[key]
	if r == nil {
		if len(n.refused) >= maxRefused {
			oldest := ""
			for k, r := range n.refused {
				if oldest == "" || r.since.Before(n.refused[oldest].since) {
					oldest = k
				}
			}
			delete(n.refused, oldest)
		}
		r = &refusal{name: name, addr: addr}
		n.refused[key] = r
	}
	r.reason, r.since = why.Error(), time.Now()
	r.count++
}

// peerName returns what people call a node.
func (n *Node) peerName(id signature.NodeID) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.peers[id]; p != nil && p.name != "" {
		return p.name
	}
	if id == n.id {
		return n.name
	}
	return id.String()[:12]
}
