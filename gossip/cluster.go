package gossip

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"

	"github.com/clsync/clsync/signature"
)

const maxConflicts = 64

// The kinds of hint in the mailbox.
const (
	hintHead byte = iota
	hintFound
	hintConflict
)

// A Cluster is this node's part in the gossip. Its methods may be called at any
// time and from any goroutine.
type Cluster struct {
	cfg     Config
	pace    pace
	log     *slog.Logger
	stats   counters
	box     *mailbox
	heads   *heads
	queue   *memberlist.TransmitLimitedQueue
	ring    *memberlist.Keyring
	cidrs   []net.IPNet
	seek    *seeker
	cast    *caster // nil where multicast is off
	listen  func() (link, error)
	started atomic.Bool
	nodes   atomic.Int64 // alive, with this one
	at      atomic.Pointer[netip.AddrPort]

	keys sync.Mutex // one SetKeys at a time
	word sync.Mutex // from a head's entry in the table to its place in the queues, else an older one could come last

	mu        sync.Mutex // below memberlist's locks and above the mailbox's
	members   map[signature.NodeID]present
	leaving   map[signature.NodeID]time.Time
	conflicts map[hintKey]time.Time
}

// present is a member and where it gossips.
type present struct {
	Member
	addr netip.AddrPort
}

// New checks cfg. Nothing is opened before Run.
func New(cfg Config) (*Cluster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Seeds = slices.Clone(cfg.Seeds)
	cfg.Multicast.Interfaces = slices.Clone(cfg.Multicast.Interfaces)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ring, err := memberlist.NewKeyring(cloneKeys(cfg.Keys), bytes.Clone(cfg.Keys[0]))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	cidrs, err := memberlist.ParseCIDRs(cfg.CIDRs)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	c := &Cluster{
		cfg: cfg, pace: cfg.Timing.pace(), log: cfg.Logger, ring: ring, cidrs: cidrs,
		box: newMailbox(),
		// Later starts are greater while the clock is right; the low bits tell two
		// clones apart that were started as one.
		heads:     newHeads(cfg.ID, uint64(time.Now().UnixNano())&^0xffff|rand.Uint64()&0xffff),
		members:   map[signature.NodeID]present{},
		leaving:   map[signature.NodeID]time.Time{},
		conflicts: map[hintKey]time.Time{},
	}
	c.nodes.Store(1)
	c.queue = &memberlist.TransmitLimitedQueue{
		NumNodes:       func() int { return int(c.nodes.Load()) },
		RetransmitMult: c.pace.list().RetransmitMult,
	}
	allowed := (&memberlist.Config{CIDRsAllowed: cidrs}).IPAllowed
	c.listen = func() (link, error) { return listen(c.cfg, allowed, &c.stats.refused) }
	c.seek = newSeeker(cfg.Seeds, c.pace, c.log)
	c.seek.member, c.seek.present = c.isMember, c.isPresent
	if !cfg.Multicast.Off {
		c.cast = c.newCaster()
	}
	return c, nil
}

func cloneKeys(keys [][]byte) [][]byte {
	out := make([][]byte, len(keys))
	for i, k := range keys {
		out[i] = bytes.Clone(k)
	}
	return out
}

func (c *Cluster) newCaster() *caster {
	k := &caster{
		id: c.cfg.ID, sessionPort: uint16(c.cfg.SessionPort),
		gossipPort: func() uint16 { return c.Addr().Port() },
		heads:      c.heads, pace: c.pace, heard: c.heard, stats: &c.stats, log: c.log,
		pending: map[string]struct{}{},
		kick:    make(chan struct{}, 1),
	}
	k.open = func() (medium, error) {
		at, err := parseListen(c.cfg.Listen)
		if err != nil {
			return nil, err
		}
		src := at.Addr()
		if src.IsUnspecified() {
			src = netip.Addr{}
		}
		return openMulticast(c.cfg.Multicast, src, c.log)
	}
	s := newSeal(c.cfg.Cluster, c.cfg.BeaconKeys)
	k.seal.Store(&s)
	return k
}

// Run takes part until ctx ends, then says goodbye, which takes two seconds at the
// most. Events go to the channel, which stays the caller's. Seeds that do not
// answer are tried for ever; only sockets that cannot be opened are an error.
func (c *Cluster) Run(ctx context.Context, events chan<- Event) error {
	if c.started.Swap(true) {
		return errors.New("gossip was run before")
	}
	t, err := c.listen()
	if err != nil {
		return err
	}
	adv := t.advertised()
	c.at.Store(&adv)
	list, err := memberlist.Create(c.listConfig(t))
	if err != nil {
		return errors.Join(fmt.Errorf("start memberlist: %w", err), t.Shutdown())
	}
	c.seek.port = adv.Port()
	c.seek.join = func(id signature.NodeID, addr netip.AddrPort) error {
		c.stats.tries.Add(1)
		// The name is for memberlist's log; that of a seed is not known yet.
		_, err := list.Join([]string{id.String() + "/" + addr.String()})
		if err == nil {
			c.stats.joins.Add(1)
		}
		return err
	}
	c.log.Info("gossip", "addr", adv.String(), "peer", c.cfg.ID.String())

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.box.run(gctx, events) })
	g.Go(func() error { return c.seek.run(gctx) })
	if c.cast != nil {
		g.Go(func() error { return c.cast.run(gctx) })
	}
	<-gctx.Done()
	t.hangUp() // else a join that hangs would hold up the goodbye
	err = g.Wait()
	return errors.Join(err, c.leave(list))
}

// leave tells every member directly, then lets memberlist spread it.
func (c *Cluster) leave(list *memberlist.Memberlist) error {
	bye := farewell{node: c.cfg.ID}.encode()
	for id, addr := range c.addresses() {
		a := memberlist.Address{Name: id.String(), Addr: addr.String()}
		if err := list.SendToAddress(a, bye); err != nil {
			c.log.Debug("say goodbye", "peer", id.String(), "err", err)
		}
	}
	if err := list.Leave(c.pace.leave); err != nil {
		c.log.Debug("leave", "err", err) // the others will notice
	}
	if err := list.Shutdown(); err != nil {
		return fmt.Errorf("stop memberlist: %w", err)
	}
	return nil
}

func (c *Cluster) listConfig(t memberlist.Transport) *memberlist.Config {
	m := c.pace.list()
	d := delegate{c}
	m.Name = c.cfg.ID.String()
	m.Transport = t
	m.Label = c.cfg.label()
	m.Keyring = c.ring
	m.GossipVerifyIncoming, m.GossipVerifyOutgoing = true, true
	m.EnableCompression = false // little to gain, and decompression is a weapon
	m.RequireNodeNames = true
	m.CIDRsAllowed = c.cidrs
	m.Delegate, m.Events, m.Alive, m.Conflict = d, d, d, d
	m.Logger = newBridge(c.log)
	return m
}

// Addr is where others reach this node's gossip; invalid before Run listens.
func (c *Cluster) Addr() netip.AddrPort {
	if p := c.at.Load(); p != nil {
		return *p
	}
	return netip.AddrPort{}
}

// Announce spreads head as this node's newest of tree. Announcing the same again
// does nothing.
func (c *Cluster) Announce(tree string, digest []byte) error {
	if tree == "" {
		return errors.New("announce a tree without a name")
	}
	c.word.Lock()
	defer c.word.Unlock()
	h, news, err := c.heads.announce(tree, digest)
	if err != nil {
		return fmt.Errorf("announce %.64q: %w", tree, err)
	}
	if news {
		c.stats.headsAnnounced.Add(1)
		c.spread(h)
	}
	return nil
}

// spread queues a head for gossip and, if it is ours, for multicast. word is held.
func (c *Cluster) spread(h head) {
	b, err := h.encode()
	if err != nil {
		c.badMessage("head", err) // cannot be: it was measured when it came in
		return
	}
	c.queue.QueueBroadcast(broadcast{name: h.node.String() + "/" + h.tree, msg: b})
	if c.cast != nil && h.node == c.cfg.ID {
		c.cast.hint(h.tree)
	}
}

// A broadcast replaces the one before it of the same name, so the queue is no
// longer than there are heads.
type broadcast struct {
	name string
	msg  []byte
}

var _ memberlist.NamedBroadcast = broadcast{}

func (b broadcast) Name() string    { return b.name }
func (b broadcast) Message() []byte { return b.msg }
func (b broadcast) Finished()       {}
func (b broadcast) Invalidates(o memberlist.Broadcast) bool {
	other, ok := o.(broadcast)
	return ok && other.name == b.name
}

// learn takes in a head, however it came, and passes on what is new.
func (c *Cluster) learn(h head) {
	c.word.Lock()
	defer c.word.Unlock()
	switch c.heads.learn(time.Now(), h, c.isMember) {
	case stale:
		c.stats.headsStale.Add(1)
	case full:
		c.stats.headsDropped.Add(1)
	case outbid:
		for _, own := range c.heads.ours() {
			c.spread(own)
		}
	case fresh:
		c.stats.headsReceived.Add(1)
		c.spread(h)
		ev := Head{From: h.node, Tree: h.tree, Digest: []byte(h.digest)}
		if !c.box.hint(hintKey{kind: hintHead, id: h.node, about: h.tree}, ev) {
			c.stats.headsDropped.Add(1)
		}
	}
}

// heard acts on a datagram that is signed and fresh. It leads to an event and to
// an attempt to join, and to nothing else.
func (c *Cluster) heard(d datagram, src netip.Addr, mayReport func() bool) {
	if d.kind == kindHint && d.node != c.cfg.ID {
		c.learn(head{node: d.node, boot: d.boot, seq: d.seq, tree: d.tree, digest: d.digest})
	}
	gossips := netip.AddrPortFrom(src, d.gossipPort)
	if c.isMember(d.node) || c.isPresent(gossips) || !mayReport() {
		return
	}
	// One that bears our own ID from elsewhere is a clone, or a recording. Joining
	// it tells: memberlist then reports the conflict.
	if !c.seek.hear(d.node, gossips) {
		c.stats.foundDropped.Add(1)
	}
	if d.node == c.cfg.ID {
		return
	}
	addr := net.JoinHostPort(src.String(), strconv.Itoa(int(d.sessionPort)))
	if !c.box.hint(hintKey{kind: hintFound, id: d.node, about: addr}, Found{ID: d.node, Addr: addr}) {
		c.stats.foundDropped.Add(1)
	}
}

func (c *Cluster) isMember(id signature.NodeID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.members[id]
	return ok
}

// isPresent tells whether a member, or this node, gossips at a.
func (c *Cluster) isPresent(a netip.AddrPort) bool {
	if a == c.Addr() {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.members {
		if m.addr == a {
			return true
		}
	}
	return false
}

func (c *Cluster) addresses() map[signature.NodeID]netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	as := make(map[signature.NodeID]netip.AddrPort, len(c.members))
	for id, m := range c.members {
		as[id] = m.addr
	}
	return as
}

// Members returns the members that are alive, without this node, by ID.
func (c *Cluster) Members() []Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	ms := make([]Member, 0, len(c.members))
	for _, m := range c.members {
		ms = append(ms, m.Member)
	}
	slices.SortFunc(ms, func(a, b Member) int {
		return cmp.Or(a.ID.Compare(b.ID), cmp.Compare(a.SessionAddr, b.SessionAddr))
	})
	return ms
}

// Stats returns what was counted so far.
func (c *Cluster) Stats() Stats { return c.stats.snapshot() }
