package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clsync/clsync/node/config"
	"github.com/clsync/clsync/node/control"
	"github.com/clsync/clsync/node/replica"
	"github.com/clsync/clsync/node/restore"
	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/transfer/message"
	"github.com/clsync/clsync/transfer/rsync"
	"github.com/clsync/clsync/transfer/session"
	"github.com/clsync/clsync/transfer/trust"
)

var _ control.Engine = (*Node)(nil)

// answerIn is how long a tree may take to answer before it counts as stuck.
const answerIn = 2 * time.Second

// maxStuck bounds the paths that status lists by name.
const maxStuck = 100

// jailed says for people whether the receiving rsync is jailed.
func (n *Node) jailed() string {
	if n.jail == rsync.Require {
		return "on"
	}
	return "off"
}

// Status says what is going on.
func (n *Node) Status(ctx context.Context) (control.Status, error) {
	s := control.Status{Node: control.Self{
		ID: n.id.String(), Name: n.name, Version: n.release, UptimeSeconds: int64(time.Since(n.started).Seconds()),
		Listen: n.hub.Addr().String(), Rsync: n.version.String(), Jail: n.jailed(), Cluster: n.config().Cluster,
	}}
	n.mu.Lock()
	for id, p := range n.peers {
		peer := control.Peer{ID: id.String(), Name: p.name, Addr: p.addr, Connected: p.connected, Since: p.since}
		if p.err != nil && !p.connected {
			peer.LastError = p.err.Error()
		}
		s.Peers = append(s.Peers, peer)
	}
	for _, known := range n.nodes.List() {
		if n.peers[known.ID] == nil && !known.Removed && known.ID != n.id {
			s.Peers = append(s.Peers, control.Peer{ID: known.ID.String(), Name: known.Name, Since: known.LastSeen})
		}
	}
	for _, r := range n.refused {
		s.Refused = append(s.Refused, control.Refused{Name: r.name, Addr: r.addr, Reason: r.reason, Since: r.since, Count: r.count})
	}
	var slots []*slot
	for _, sl := range n.trees {
		slots = append(slots, sl)
	}
	n.mu.Unlock()
	for _, sl := range slots {
		s.Trees = append(s.Trees, n.treeStatus(ctx, sl))
	}
	slices.SortFunc(s.Peers, func(a, b control.Peer) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Refused, func(a, b control.Refused) int { return strings.Compare(a.Addr, b.Addr) })
	slices.SortFunc(s.Trees, func(a, b control.Tree) int { return strings.Compare(a.Name, b.Name) })
	return s, nil
}

func (n *Node) treeStatus(ctx context.Context, sl *slot) control.Tree {
	n.mu.Lock()
	t, err, cfg := sl.tree, sl.err, sl.cfg
	n.mu.Unlock()
	s := control.Tree{Name: cfg.Name, Path: cfg.Path, State: control.Starting}
	if t == nil || !t.opened.Load() {
		if err != nil {
			s.State, s.Reason = control.Stopped, err.Error()
		}
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	var core control.Tree
	if err := t.call(ctx, func() { core = t.status() }); err != nil {
		s.State, s.Reason = control.Stopped, "does not answer: its disk may hang"
		return s
	}
	core.Name, core.Path = s.Name, s.Path
	return core
}

// status is run by the tree's goroutine.
func (t *tree) status() control.Tree {
	st, c := t.core.State(), t.core.Counters()
	s := control.Tree{
		State: control.Running, Files: int64(t.store.Len()), Pending: int64(st.Pending), PendingBytes: st.PendingBytes,
		Conflicts: t.kept.count(), Queue: int64(st.Dirty + st.Looking + st.Gone + st.Fetching + st.Applying),
		Undecided: int64(st.Conflicts), Local: int64(st.Local), Resting: t.resting.Load(),
		Counters: control.Counters{
			VersionsMade: int64(c.VersionsMade), FolderVersionsMade: int64(c.FolderVersionsMade),
			RecordsApplied: int64(c.RecordsApplied), RecordsSent: int64(c.RecordsSent), RecordsReceived: int64(c.RecordsReceived),
			ContentsSent: t.counts.contentsSent.Load(), ContentsReceived: int64(c.ContentsReceived),
			BytesSent: t.counts.bytesSent.Load(), BytesReceived: int64(c.BytesReceived), RsyncRuns: t.counts.rsyncRuns.Load(),
			Echoes: int64(c.Echoes), EchoesSuppressed: int64(c.EchoesSuppressed), Looks: int64(c.Looks), Applies: int64(c.Applies),
			ConflictsMade: int64(c.Conflicts), Overflows: t.counts.overflows.Load(), Scans: t.counts.scans.Load(),
		},
	}
	if !t.ready.Load() {
		s.State = control.Scanning
	}
	if m := t.monitor.Load(); m != nil {
		s.Backend, s.BackendReason = m.backend, m.reason
	}
	if _, _, reason := t.root.state(); reason != nil {
		s.State, s.Reason = control.Stopped, reason.Error()
	}
	if why := t.problem.Load(); why != nil {
		s.State, s.Reason = control.Stopped, *why
	}
	now := time.Now()
	for _, p := range t.core.Stuck(maxStuck) {
		if p.Busy {
			s.Busy++
			s.BusySeconds = max(s.BusySeconds, now.Sub(p.Since).Seconds())
			continue
		}
		why := p.Why
		if p.Err != nil {
			why += ": " + p.Err.Error()
		}
		note := control.PathNote{Path: string(p.Path), Reason: why, Since: p.Since}
		if p.Look {
			s.Unreadable = append(s.Unreadable, note)
		} else {
			s.Blocked = append(s.Blocked, note)
		}
	}
	for _, p := range t.core.Local(maxStuck) {
		s.LocalPaths = append(s.LocalPaths, control.PathNote{Path: string(p), Reason: "changed here; this tree is receive-only, so it is kept and not sent"})
	}
	for _, p := range t.core.Lacking(maxStuck) {
		s.Lacking = append(s.Lacking, control.PathNote{Path: string(p), Reason: "the file system here does not keep all of its attributes"})
	}
	for _, l := range t.core.Lags() {
		s.Peers = append(s.Peers, t.lag(now, l))
	}
	return s
}

// A lagNote remembers since when a peer has been behind.
type lagNote struct{ since time.Time }

func (t *tree) lag(now time.Time, l replica.Lag) control.Lag {
	out := control.Lag{ID: l.ID.String(), Name: t.node.peerName(l.ID), Records: int64(l.Records), Bytes: l.Bytes, Connected: true}
	note := t.notes[l.ID]
	switch {
	case l.Records == 0:
		note.since = time.Time{}
	case note.since.IsZero():
		note.since = now
	}
	t.notes[l.ID] = note
	if !note.since.IsZero() {
		out.Seconds = now.Sub(note.since).Seconds()
	}
	return out
}

// Health returns nil as long as every tree's goroutine answers.
func (n *Node) Health(ctx context.Context) error {
	for _, t := range n.running() {
		if !t.opened.Load() {
			continue // still opening its index
		}
		if err := t.call(ctx, func() {}); err != nil {
			return fmt.Errorf("tree %s does not answer: %w", t.name, err)
		}
	}
	return nil
}

// Nodes returns all nodes ever admitted and not removed, this one first.
func (n *Node) Nodes(context.Context) ([]control.Node, error) {
	all := []control.Node{{ID: n.id.String(), Name: n.name, Addr: n.hub.Addr().String(), Self: true, Connected: true, LastSeen: time.Now()}}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range n.nodes.List() {
		if k.Removed || k.ID == n.id {
			continue
		}
		node := control.Node{ID: k.ID.String(), Name: k.Name, LastSeen: k.LastSeen}
		if p := n.peers[k.ID]; p != nil {
			node.Addr, node.Connected = p.addr, p.connected
		}
		all = append(all, node)
	}
	return all, nil
}

// RemoveNode takes a node out of the cluster, as far as this node is concerned.
func (n *Node) RemoveNode(_ context.Context, name string) error {
	if name == n.name {
		return fmt.Errorf("%w: %s is this node; remove it on the others", control.ErrRefused, name)
	}
	id, err := n.nodes.Remove(time.Now(), name)
	if errors.Is(err, trust.ErrUnknownNode) {
		return fmt.Errorf("%w: %w", control.ErrNotFound, err)
	}
	if err != nil {
		return err
	}
	n.hub.Forget(id, "")
	n.hub.Drop(id, trust.ErrRemoved)
	n.mu.Lock()
	delete(n.peers, id)
	n.mu.Unlock()
	n.log.Warn("node removed", "peer", name, "id", id.String())
	return nil
}

// Conflicts returns what the conflict stores keep, newest first.
func (n *Node) Conflicts(ctx context.Context, tree string) ([]control.Conflict, error) {
	var all []control.Conflict
	found := false
	for _, t := range n.running() {
		if tree != "" && t.name != tree {
			continue
		}
		found = true
		kept, err := t.conflicts(ctx)
		if err != nil {
			return nil, fmt.Errorf("tree %s: %w", t.name, err)
		}
		for _, k := range kept {
			all = append(all, control.Conflict{
				ID: k.ID, Tree: t.name, Path: string(k.Path), Why: k.Note.Why, When: time.Unix(0, k.Note.When), Node: k.Note.Node,
				Version: k.Note.Version, Type: k.Sig.Type.String(), Size: k.Sig.Size, MTime: time.Unix(0, k.Sig.MTime), Object: k.File,
			})
		}
	}
	if !found && tree != "" {
		return nil, fmt.Errorf("%w: tree %s", control.ErrNotFound, tree)
	}
	slices.SortFunc(all, func(a, b control.Conflict) int { return b.When.Compare(a.When) })
	return all, nil
}

// RestoreConflict puts a kept state back, as a user's edit.
func (n *Node) RestoreConflict(ctx context.Context, tree, id, to string) error {
	t := n.tree(tree)
	if t == nil {
		return fmt.Errorf("%w: tree %s", control.ErrNotFound, tree)
	}
	kept, err := t.conflicts(ctx)
	if err != nil {
		return err
	}
	for _, k := range kept {
		if k.ID != id {
			continue
		}
		if to == "" {
			to = string(k.Path)
		}
		p, err := signature.ParsePath(to)
		if err != nil {
			return fmt.Errorf("%w: %w", control.ErrRefused, err)
		}
		root := t.cfg.Load().Path
		ok := t.root.with(ctx, func(*signature.Root) {
			err = restore.Object(k.File, restore.Target{Root: root, Path: to, Staging: root + "/" + signature.Private + "/staging", Replace: true})
		})
		if !ok {
			return ctx.Err()
		}
		// The monitor leaves out what our own process did.
		t.post(ctx, replica.Hinted{Paths: []signature.Path{p}, Deep: true})
		return err
	}
	return fmt.Errorf("%w: conflict %s of tree %s", control.ErrNotFound, id, tree)
}

// Reload takes over what a configuration may change while the node runs.
func (n *Node) Reload(ctx context.Context, c *config.Config) error {
	keys, err := trust.ReadClusterKeys(c.KeyFile)
	if err != nil {
		return err
	}
	if err := n.identity.Reload(keys); err != nil {
		return err
	}
	if err := n.cluster.SetKeys(keys.Gossip(c.Cluster), keys.Beacon(c.Cluster)); err != nil {
		return err
	}
	if err := n.cluster.SetSeeds(c.Gossip.Seeds); err != nil {
		return err
	}
	n.mu.Lock()
	var gone []*slot
	for name, s := range n.trees {
		if _, ok := c.Tree(name); !ok {
			delete(n.trees, name)
			s.cancel()
			gone = append(gone, s)
		}
	}
	var changed []*tree
	for i := range c.Trees {
		cfg := &c.Trees[i]
		s := n.trees[cfg.Name]
		if s == nil {
			n.run(cfg)
			continue
		}
		s.cfg = cfg
		if s.tree != nil {
			s.tree.cfg.Store(cfg)
			changed = append(changed, s.tree)
		}
	}
	n.cfg = c
	n.mu.Unlock()
	for _, s := range gone {
		select {
		case <-s.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, s := range gone {
		for _, p := range n.hub.Peers() {
			err := n.hub.Send(p.ID, message.TypeClose, message.Close{Tree: s.cfg.Name}.Encode())
			if err != nil && !errors.Is(err, session.ErrGone) {
				n.hub.Drop(p.ID, fmt.Errorf("tell of a tree taken out: %w", err))
			}
		}
	}
	for _, t := range changed {
		t.post(ctx, replica.Rules{Delay: time.Duration(t.cfg.Load().Delay)})
	}
	return nil
}
