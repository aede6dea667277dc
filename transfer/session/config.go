package session

import (
	"errors"
	"log/slog"
	"time"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/transfer/trust"
)

// Bounds of the protocol.
const (
	MaxPayload = 1 << 20  // of a frame that Send takes, and of Config.Hello
	MaxHeader  = 32 << 10 // of a stream
	MaxReason  = 1 << 10  // of a text that says why
)

var (
	// ErrFull is returned by Send when the peer does not take what is queued.
	ErrFull = errors.New("queue to the peer is full")
	// ErrGone is returned where the peer has no session, or no longer.
	ErrGone = errors.New("peer is gone")
	// ErrDead is why a session ended of which nothing was heard for DeadAfter.
	ErrDead = errors.New("nothing heard from the peer")
	// ErrFrame is returned for bytes that are not of the protocol.
	ErrFrame = errors.New("malformed frame")
	// ErrDropped is why a session ended that Drop ended.
	ErrDropped = errors.New("session was dropped")
	// ErrReplaced is why a session ended when a newer one took its place.
	ErrReplaced = errors.New("a newer session took its place")
	// ErrRefusesUs is reported when a peer does not accept us.
	ErrRefusesUs = errors.New("peer refuses us")
)

// Config says how a Hub works. Zero fields are set to the default.
type Config struct {
	Identity *trust.Identity
	Nodes    *trust.Nodes
	Listen   string // host:port; the host empty for all, the port 0 for any
	// Hello returns the payload that the peer gets in its Up, at most MaxPayload. It
	// is called from many goroutines, once per handshake.
	Hello  func() []byte
	Logger *slog.Logger

	DeadAfter        time.Duration // 5 s
	HandshakeTimeout time.Duration // 5 s, for TLS and again for the hello
	BackoffMin       time.Duration // 200 ms: before the second dial of an address
	BackoffMax       time.Duration // 30 s
	Quarantine       time.Duration // 2 s after the first Drop; doubles, up to 5 minutes

	QueueFrames int // 4096 per peer
	QueueBytes  int // 8 MiB per peer
	MaxPeers    int // 256

	MaxPending int // 64 connections whose handshake is not through, and as many again of members
	PerAddress int // 16 of these from one address
	PerSecond  int // 50 new connections from one address that no member uses

	MaxStreams  int           // 64 per peer and direction
	IdleStreams int           // 4 connections kept per peer for the next stream
	IdleFor     time.Duration // 30 s
}

func def[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

func (c *Config) defaults() {
	def(&c.DeadAfter, 5*time.Second)
	def(&c.HandshakeTimeout, 5*time.Second)
	def(&c.BackoffMin, 200*time.Millisecond)
	def(&c.BackoffMax, 30*time.Second)
	def(&c.Quarantine, 2*time.Second)
	def(&c.QueueFrames, 4096)
	def(&c.QueueBytes, 8<<20)
	def(&c.MaxPeers, 256)
	def(&c.MaxPending, 64)
	def(&c.PerAddress, 16)
	def(&c.PerSecond, 50)
	def(&c.MaxStreams, 64)
	def(&c.IdleStreams, 4)
	def(&c.IdleFor, 30*time.Second)
	if c.Hello == nil {
		c.Hello = func() []byte { return nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate tells what is wrong with c.
func (c Config) Validate() error {
	switch {
	case c.Identity == nil:
		return errors.New("session needs an identity")
	case c.Nodes == nil:
		return errors.New("session needs the known nodes")
	}
	for _, d := range []time.Duration{c.DeadAfter, c.HandshakeTimeout, c.BackoffMin, c.BackoffMax, c.Quarantine, c.IdleFor} {
		if d < 0 {
			return errors.New("session: a duration is negative")
		}
	}
	for _, n := range []int{c.QueueFrames, c.QueueBytes, c.MaxPeers, c.MaxPending, c.PerAddress, c.PerSecond, c.MaxStreams, c.IdleStreams} {
		if n < 0 {
			return errors.New("session: a limit is negative")
		}
	}
	return nil
}

// A Peer is a node that has a session with us.
type Peer struct {
	ID    signature.NodeID
	Name  string
	Addr  string // where it listens
	Hello []byte // what its Config.Hello returned
}

// An Event is what a Hub tells. Of one session, Up comes first and Down last;
// sessions of one peer do not overlap.
type Event interface{ event() }

// Up: a session with a peer begins.
type Up struct{ Peer Peer }

// Down: it ended. Its streams have ended too.
type Down struct {
	ID  signature.NodeID
	Err error
}

// Frame is what the peer gave to Send. Payload belongs to the receiver.
type Frame struct {
	From    signature.NodeID
	Type    byte
	Payload []byte
}

// Incoming is a stream that a peer opens. It must be accepted or rejected.
type Incoming struct {
	From   signature.NodeID
	Header []byte
	Stream *Stream
}

// Refused: somebody was not let in, or did not let us in, whom an operator may
// want to know about. It is told once in a while only, and not when nobody
// listens; the log has it too.
type Refused struct {
	Addr   string
	Name   string // empty where TLS ended before it was known
	Reason error
}

func (Up) event()       {}
func (Down) event()     {}
func (Frame) event()    {}
func (Incoming) event() {}
func (Refused) event()  {}
