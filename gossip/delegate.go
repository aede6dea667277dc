package gossip

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/clsync/clsync/signature"
)

// A delegate is what memberlist calls. None of its methods may block, keep a
// buffer, or ask memberlist anything: some are called under its locks.
type delegate struct{ *Cluster }

var (
	_ memberlist.Delegate         = delegate{}
	_ memberlist.EventDelegate    = delegate{}
	_ memberlist.AliveDelegate    = delegate{}
	_ memberlist.ConflictDelegate = delegate{}
)

func (c delegate) NodeMeta(int) []byte {
	return meta{id: c.cfg.ID, port: uint16(c.cfg.SessionPort), name: c.cfg.Name, version: c.cfg.Version}.encode()
}

func (c delegate) NotifyMsg(b []byte) {
	h, f, kind, err := decodeMessage(b)
	switch {
	case err != nil:
		c.badMessage("message", err)
	case kind == kindHead:
		c.learn(h)
	default:
		c.farewell(f.node)
	}
}

func (c delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return c.queue.GetBroadcasts(overhead, limit)
}

func (c delegate) LocalState(bool) []byte { return encodeState(c.heads.all()) }

func (c delegate) MergeRemoteState(b []byte, _ bool) {
	hs, err := decodeState(b)
	if err != nil {
		c.badMessage("state", err)
		return
	}
	for _, h := range hs {
		c.learn(h)
	}
}

// NotifyAlive refuses members that are not what they should be before memberlist
// takes them in or passes them on.
func (c delegate) NotifyAlive(n *memberlist.Node) error {
	m, _, err := readNode(n)
	if err != nil {
		c.stats.badMessages.Add(1)
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.members[m.ID]; !known && m.ID != c.cfg.ID && len(c.members) >= MaxMembers {
		return fmt.Errorf("more than %d members", MaxMembers)
	}
	return nil
}

func readNode(n *memberlist.Node) (Member, netip.AddrPort, error) {
	m, err := decodeMeta(n.Meta)
	if err != nil {
		return Member{}, netip.AddrPort{}, fmt.Errorf("read metadata: %w", err)
	}
	if n.Name != m.id.String() {
		return Member{}, netip.AddrPort{}, fmt.Errorf("metadata of %s under the name %.64q", m.id, n.Name)
	}
	ip, ok := netip.AddrFromSlice(n.Addr)
	if !ok {
		return Member{}, netip.AddrPort{}, fmt.Errorf("address of %d bytes", len(n.Addr))
	}
	ip = ip.Unmap()
	return Member{
		ID:          m.id,
		Name:        m.name,
		SessionAddr: net.JoinHostPort(ip.String(), strconv.Itoa(int(m.port))),
		Version:     m.version,
	}, netip.AddrPortFrom(ip, n.Port), nil
}

func (c delegate) NotifyJoin(n *memberlist.Node)   { c.alive(n) }
func (c delegate) NotifyUpdate(n *memberlist.Node) { c.alive(n) }

func (c delegate) alive(n *memberlist.Node) {
	m, addr, err := readNode(n)
	if err != nil {
		c.badMessage("member", err)
		return
	}
	if m.ID == c.cfg.ID {
		return
	}
	c.mu.Lock()
	c.members[m.ID] = present{Member: m, addr: addr}
	delete(c.leaving, m.ID)
	c.nodes.Store(int64(len(c.members)) + 1)
	c.box.member(m.ID, Alive{Member: m})
	c.mu.Unlock()
	c.seek.forget(m.ID)
}

func (c delegate) NotifyLeave(n *memberlist.Node) {
	id, err := signature.ParseNodeID(n.Name)
	if err != nil {
		c.badMessage("member", err)
		return
	}
	c.mu.Lock()
	m, known := c.members[id]
	said, left := c.leaving[id]
	left = left && time.Since(said) < farewellHolds
	delete(c.members, id)
	delete(c.leaving, id)
	c.nodes.Store(int64(len(c.members)) + 1)
	if known {
		c.box.member(id, Gone{ID: id, Name: m.Name, Left: left})
	}
	c.mu.Unlock()
	if known && !left {
		c.seek.lose(id, m.addr)
	}
}

// farewellHolds is how soon a node must go after it said so; the word of one that
// stays is forgotten.
const farewellHolds = 10 * time.Second

// farewell notes that a member is about to leave. Only members are noted, so that
// there are no more notes than members.
func (c *Cluster) farewell(id signature.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.members[id]; known {
		c.leaving[id] = time.Now()
	}
}

func (c delegate) NotifyConflict(existing, other *memberlist.Node) {
	id, err := signature.ParseNodeID(existing.Name)
	if err != nil {
		c.badMessage("member", err)
		return
	}
	addr := net.JoinHostPort(other.Addr.String(), strconv.Itoa(int(other.Port)))
	key := hintKey{kind: hintConflict, id: id, about: addr}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, ok := c.conflicts[key]; ok && now.Sub(at) < c.pace.reconflict {
		return
	}
	for k, at := range c.conflicts {
		if now.Sub(at) >= c.pace.reconflict {
			delete(c.conflicts, k)
		}
	}
	if len(c.conflicts) >= maxConflicts {
		return // memberlist repeats it, and the others are being reported
	}
	c.conflicts[key] = now
	c.stats.conflicts.Add(1)
	name := c.members[id].Name
	if id == c.cfg.ID {
		name = c.cfg.Name
	}
	if !c.box.hint(key, Conflict{ID: id, Name: name, Addr: addr, Own: id == c.cfg.ID}) {
		delete(c.conflicts, key) // so that the next time it is tried again
	}
}

func (c *Cluster) badMessage(what string, err error) {
	c.stats.badMessages.Add(1)
	c.log.Debug("malformed "+what, "err", err)
}
