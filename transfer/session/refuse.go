package session

import (
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/transfer/trust"
)

// Counts are what a Hub has seen since it began.
type Counts struct {
	Accepted   uint64 // connections taken from the listener
	TurnedAway uint64 // of these, closed at once: too many
	Handshakes uint64 // ended in TLS or in the hello: plain TCP, other protocols, strangers, too slow
	Refused    uint64 // members that are not let in
	Dials      uint64
	FailedDial uint64
	Sessions   uint64 // that came up
	Malformed  uint64 // sessions and streams that ended by bytes that are not of the protocol
	Streams    uint64 // opened by us
	Reused     uint64 // of these, on a connection that had carried another
	Served     uint64 // opened by peers
}

type counters struct {
	accepted, turnedAway, handshakes, refused, dials, failedDial, sessions, malformed, streams, reused, served atomic.Uint64
}

// Counts returns the counts of now.
func (h *Hub) Counts() Counts {
	c := &h.counts
	return Counts{
		Accepted: c.accepted.Load(), TurnedAway: c.turnedAway.Load(), Handshakes: c.handshakes.Load(),
		Refused: c.refused.Load(), Dials: c.dials.Load(), FailedDial: c.failedDial.Load(), Sessions: c.sessions.Load(),
		Malformed: c.malformed.Load(), Streams: c.streams.Load(), Reused: c.reused.Load(), Served: c.served.Load(),
	}
}

const (
	reportEvery = 10 * time.Second // one report of one kind from one address
	maxReports  = 256
)

// reports keeps what strangers do from filling the log.
type reports struct {
	mu   sync.Mutex
	last map[string]*report
}

type report struct {
	at      time.Time
	skipped int
}

// first tells whether this is to be reported, and how many alike were not before.
func (r *reports) first(now time.Time, key string) (skipped int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.last[key]
	if e == nil {
		if len(r.last) >= maxReports {
			for k, e := range r.last {
				if now.Sub(e.at) >= reportEvery {
					delete(r.last, k)
				}
			}
		}
		if len(r.last) >= maxReports {
			return 0, false
		}
		if r.last == nil {
			r.last = map[string]*report{}
		}
		r.last[key] = &report{at: now}
		return 0, true
	}
	if now.Sub(e.at) < reportEvery {
		e.skipped++
		return 0, false
	}
	skipped = e.skipped
	*e = report{at: now}
	return skipped, true
}

// remarkable are the reasons an operator may want to know.
var remarkable = []error{
	trust.ErrOtherKey, trust.ErrOtherName, trust.ErrRemoved, trust.ErrStranger, trust.ErrNodesFull, ErrRefusesUs,
}

// refuse reports why a connection came to nothing.
func (h *Hub) refuse(addr, name string, reason error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	kind := "other"
	for _, e := range remarkable {
		if errors.Is(reason, e) {
			kind = e.Error()
		}
	}
	skipped, ok := h.reports.first(time.Now(), host+" "+name+" "+kind)
	if !ok {
		return
	}
	log := h.log.With("addr", addr, "err", reason, "skipped", skipped)
	if kind == "other" {
		log.Debug("connection refused", "peer", name)
		return
	}
	log.Warn("connection refused", "peer", name)
	select {
	case h.events <- Refused{Addr: addr, Name: name, Reason: reason}:
	default: // nobody listens just now, and strangers must not hold us up
	}
}

// explain tells what the other side's TLS alert means, where it means anything.
func explain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" && strings.Contains(err.Error(), "bad certificate") {
		return errors.Join(ErrRefusesUs, err)
	}
	return err
}

// maxQuarantine is the longest that a peer is left alone after a Drop; after as
// long without another one it starts over.
const maxQuarantine = 5 * time.Minute

type strikes struct {
	n     int
	until time.Time
}

// strike notes a Drop. h.mu is held.
func (h *Hub) strike(now time.Time, id signature.NodeID) {
	s := h.strikes[id]
	if now.Sub(s.until) > maxQuarantine {
		s.n = 0
	}
	s.n++
	s.until = now.Add(min(maxQuarantine, h.cfg.Quarantine<<min(s.n-1, 20)))
	h.strikes[id] = s
	for old, s := range h.strikes {
		if now.Sub(s.until) > maxQuarantine {
			delete(h.strikes, old)
		}
	}
}
