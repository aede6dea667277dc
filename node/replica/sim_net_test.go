package replica

import (
	"math/rand/v2"

	"github.com/clsync/clsync/signature"
)

type messageKind uint8

const (
	headMessage messageKind = iota
	cutMessage
	ackMessage
	wantMessage
	doneMessage
)

type message struct {
	kind          messageKind
	begin         bool
	known, landed signature.Knowledge
	cut           Cut
	id            int // of a cut
	want          FetchTask
	got           []string
}

// A link is the session between two nodes, one ordered stream each way. What is
// under way when it ends is lost.
type link struct {
	up      bool
	cut     bool // by a partition
	session int
	way     [2][]message
	open    [2]bool // has had the other's first head
	cuts    [2]int
	sending [2]int
	acks    [2]int
}

// link returns the link between two nodes, and which side a is.
func (s *sim) link(a, b int) (*link, int) {
	k, side := [2]int{a, b}, 0
	if a > b {
		k, side = [2]int{b, a}, 1
	}
	l := s.links[k]
	if l == nil {
		l = &link{}
		s.links[k] = l
	}
	return l, side
}

func (s *sim) connect(a, b int) {
	l, _ := s.link(a, b)
	if l.up || l.cut || s.nodes[a].down || s.nodes[b].down {
		return
	}
	s.say("session n%d n%d", a, b)
	*l = link{up: true, session: l.session + 1}
	s.send(a, b, s.nodes[a].head(true))
	s.send(b, a, s.nodes[b].head(true))
}

func (s *sim) disconnect(a, b int) {
	l, _ := s.link(a, b)
	if !l.up {
		return
	}
	s.say("session n%d n%d ends", a, b)
	*l = link{session: l.session, cut: l.cut}
	for _, at := range []int{a, b} {
		n, other := s.nodes[at], s.nodes[a+b-at]
		if n.down {
			continue
		}
		for _, id := range sortedBatches(n.fetches) {
			if t := n.fetches[id]; t.From == other.node {
				n.fetched(t, nil)
			}
		}
		n.step(PeerDown{ID: other.node}, s.rng)
	}
}

// send tells whether there is a session to send in.
func (s *sim) send(from, to int, m message) bool {
	l, side := s.link(from, to)
	if !l.up {
		return false
	}
	switch m.kind {
	case cutMessage:
		l.cuts[side]++
		m.id = l.cuts[side]
		l.sending[side] = m.id
	case ackMessage:
		m.id = l.acks[side]
	}
	l.way[side] = append(l.way[side], m)
	return true
}

func (s *sim) sendIn(from, to, session int, m message) {
	if l, _ := s.link(from, to); l.session == session {
		s.send(from, to, m)
	}
}

// deliver hands over the first message from one node to another.
func (s *sim) deliver(from, to int, rng *rand.Rand) {
	l, side := s.link(from, to)
	m := l.way[side][0]
	l.way[side] = l.way[side][1:]
	n, id := s.nodes[to], s.nodes[from].node
	mine := 1 - side
	if m.kind != headMessage && !l.open[mine] {
		return
	}
	switch m.kind {
	case headMessage:
		if !l.open[mine] {
			l.open[mine] = true
			n.step(PeerUp{ID: id, Known: m.known, Landed: m.landed}, rng)
		} else {
			n.step(HeadIn{ID: id, Known: m.known, Landed: m.landed}, rng)
		}
	case cutMessage:
		l.acks[mine] = m.id
		n.step(CutIn{From: id, Cut: m.cut}, rng)
	case ackMessage:
		if m.id == l.sending[mine] && m.id != 0 {
			l.sending[mine] = 0
			n.step(Acked{ID: id, OK: true}, rng)
		}
	case wantMessage:
		n.wanted(from, l.session, m.want)
	case doneMessage:
		n.fetched(m.want, m.got)
	}
}
