// Package message is what two nodes say to each other on a session, as values and
// as bytes. PROTOCOL.md describes the same, byte for byte.
//
// Decoding bounds every length and refuses what no correct node sends; it never
// allocates more than a small multiple of the frame.
package message

import (
	"fmt"
	"math"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/wire"
)

// Version is the version of the protocol. A peer with another one is refused.
const Version = 1

// Types of frames on a session.
const (
	TypeHead  byte = 1
	TypeCut   byte = 2
	TypeAck   byte = 3
	TypeWant  byte = 4
	TypeDone  byte = 5
	TypeClose byte = 6
)

// Bounds of what one message holds.
const (
	MaxTreeName = 64
	MaxItems    = 1024      // of a want
	MaxListings = 1 << 14   // of one page
	PageBytes   = 192 << 10 // after which a page is closed
	MaxLane     = 3
	MaxArgs     = 64 // words of an argument vector
)

// Head is what a node knows and has landed of a tree. One with Begin opens the tree
// on a session: whatever was under way for it counts for nothing, the receiver
// answers with its own head and may stream cuts from then on.
type Head struct {
	Tree          string
	Known, Landed signature.Knowledge
	ReceiveOnly   bool
	Begin         bool
}

// CutPage is one page of a cut. Pages come in order, from 0; the last one brings
// the knowledge.
type CutPage struct {
	Tree      string
	Cut       uint64
	Page      uint64
	Last      bool
	Listings  []signature.Listing
	Knowledge signature.Knowledge
}

// Ack says that a cut is durable.
type Ack struct {
	Tree string
	Cut  uint64
}

// Want asks for contents, to be pushed into the batch's staging.
type Want struct {
	Tree  string
	Batch uint64
	Lane  uint8 // how rsync is to be run, see Push
	Items []Item
}

// Item is one wanted content.
type Item struct {
	Path signature.Path
	Dot  signature.Dot
	Hash signature.Hash
	Size int64
}

// Answer is what became of an item, at its sender.
type Answer uint8

const (
	Sealed  Answer = iota // sent, and its source had not moved since it was looked at
	NotHere               // this node does not hold it, or it moved meanwhile
	Failed                // rsync or the way to it failed
)

// Done answers a want, item by item, after its push.
type Done struct {
	Tree    string
	Batch   uint64
	Answers []Answer
}

func writeTree(w *wire.Writer, tree string) { w.String(tree) }

func readTree(r *wire.Reader) string {
	s := string(r.Bytes(MaxTreeName))
	if r.Err() == nil && !TreeName(s) {
		r.Fail("tree name %q", s)
	}
	return s
}

// TreeName tells whether s can name a tree: letters, digits, dot, dash and
// underscore, not beginning with a dot or dash, at most 64 bytes.
func TreeName(s string) bool {
	if s == "" || len(s) > MaxTreeName || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// Encode writes a head.
func (h Head) Encode() []byte {
	w := wire.NewWriter()
	w.Array(5)
	writeTree(w, h.Tree)
	signature.WriteKnowledge(w, h.Known)
	signature.WriteKnowledge(w, h.Landed)
	w.Bool(h.ReceiveOnly)
	w.Bool(h.Begin)
	return w.Frame()
}

// DecodeHead reads a head.
func DecodeHead(b []byte) (Head, error) {
	r := wire.NewReader(b)
	var h Head
	r.Tuple(5)
	h.Tree = readTree(r)
	h.Known = signature.ReadKnowledge(r)
	h.Landed = signature.ReadKnowledge(r)
	h.ReceiveOnly = r.Bool()
	h.Begin = r.Bool()
	return h, r.Err()
}

// Close says that the sender has taken out a tree: as at the end of the session, as
// far as that tree is concerned.
type Close struct{ Tree string }

// Encode writes a close.
func (c Close) Encode() []byte {
	w := wire.NewWriter()
	w.Array(1)
	writeTree(w, c.Tree)
	return w.Frame()
}

// DecodeClose reads a close.
func DecodeClose(b []byte) (Close, error) {
	r := wire.NewReader(b)
	r.Tuple(1)
	c := Close{Tree: readTree(r)}
	return c, r.Err()
}

// Pages cuts a cut into pages that fit into frames and hands them out one by one.
func Pages(tree string, cut uint64, listings []signature.Listing, k signature.Knowledge, send func([]byte) error) error {
	for page := uint64(0); ; page++ {
		body := wire.NewWriter()
		n := 0
		for n < len(listings) && n < MaxListings && body.Len() < PageBytes {
			signature.WriteListing(body, listings[n])
			n++
		}
		listings = listings[n:]
		last := len(listings) == 0
		w := wire.NewWriter()
		w.Array(6)
		writeTree(w, tree)
		w.Uint(cut)
		w.Uint(page)
		w.Bool(last)
		w.Array(n)
		w.Raw(body.Frame())
		if last {
			signature.WriteKnowledge(w, k)
		} else {
			signature.WriteKnowledge(w, nil)
		}
		if err := send(w.Frame()); err != nil {
			return fmt.Errorf("send page %d: %w", page, err)
		}
		if last {
			return nil
		}
	}
}

// DecodeCutPage reads a page.
func DecodeCutPage(b []byte) (CutPage, error) {
	r := wire.NewReader(b)
	var p CutPage
	r.Tuple(6)
	p.Tree = readTree(r)
	p.Cut = r.Uint(math.MaxUint64)
	p.Page = r.Uint(math.MaxUint32)
	p.Last = r.Bool()
	n := r.Array(MaxListings)
	p.Listings = make([]signature.Listing, 0, min(n, 1024))
	for range n {
		l := signature.ReadListing(r)
		if r.Err() == nil && len(l.Versions) == 0 {
			// It would make a path vanish without a version that says so.
			r.Fail("%s is listed with no version", l.Path.Quote())
		}
		if r.Err() != nil {
			return CutPage{}, r.Err()
		}
		p.Listings = append(p.Listings, l)
	}
	p.Knowledge = signature.ReadKnowledge(r)
	if r.Err() == nil && !p.Last && (len(p.Knowledge) > 0 || n == 0) {
		r.Fail("%d listings and knowledge of %d actors before the last page", n, len(p.Knowledge))
	}
	return p, r.Err()
}

// Encode writes an ack.
func (a Ack) Encode() []byte {
	w := wire.NewWriter()
	w.Array(2)
	writeTree(w, a.Tree)
	w.Uint(a.Cut)
	return w.Frame()
}

// DecodeAck reads an ack.
func DecodeAck(b []byte) (Ack, error) {
	r := wire.NewReader(b)
	var a Ack
	r.Tuple(2)
	a.Tree = readTree(r)
	a.Cut = r.Uint(math.MaxUint64)
	return a, r.Err()
}

// Encode writes a want.
func (m Want) Encode() []byte {
	w := wire.NewWriter()
	w.Array(4)
	writeTree(w, m.Tree)
	w.Uint(m.Batch)
	w.Uint(uint64(m.Lane))
	w.Array(len(m.Items))
	for _, it := range m.Items {
		w.Array(4)
		w.String(string(it.Path))
		signature.WriteDot(w, it.Dot)
		w.Bytes(it.Hash.Sum[:])
		w.Int(it.Size)
	}
	return w.Frame()
}

// DecodeWant reads a want. No path stands in it twice.
func DecodeWant(b []byte) (Want, error) {
	r := wire.NewReader(b)
	var m Want
	r.Tuple(4)
	m.Tree = readTree(r)
	m.Batch = r.Uint(math.MaxUint64)
	m.Lane = uint8(r.Uint(MaxLane))
	n := r.Array(MaxItems)
	seen := make(map[signature.Path]bool, n)
	for range n {
		r.Tuple(4)
		it := Item{Path: signature.ReadPath(r), Dot: signature.ReadDot(r), Hash: signature.Hash{Algorithm: signature.SHA256}}
		r.Fixed(it.Hash.Sum[:])
		it.Size = r.Int()
		if r.Err() == nil && (it.Size < 0 || seen[it.Path]) {
			r.Fail("item %s", it.Path.Quote())
		}
		if r.Err() != nil {
			return Want{}, r.Err()
		}
		seen[it.Path] = true
		m.Items = append(m.Items, it)
	}
	if n == 0 {
		r.Fail("want of nothing")
	}
	return m, r.Err()
}

// Encode writes the answers to a want.
func (d Done) Encode() []byte {
	w := wire.NewWriter()
	w.Array(3)
	writeTree(w, d.Tree)
	w.Uint(d.Batch)
	w.Array(len(d.Answers))
	for _, a := range d.Answers {
		w.Uint(uint64(a))
	}
	return w.Frame()
}

// DecodeDone reads the answers to a want.
func DecodeDone(b []byte) (Done, error) {
	r := wire.NewReader(b)
	var d Done
	r.Tuple(3)
	d.Tree = readTree(r)
	d.Batch = r.Uint(math.MaxUint64)
	for range r.Array(MaxItems) {
		d.Answers = append(d.Answers, Answer(r.Uint(uint64(Failed))))
	}
	return d, r.Err()
}

// Push is the header of a data stream: a batch that its receiver has asked for.
type Push struct {
	Tree  string
	Batch uint64
	Lane  uint8
	Argv  []string // what the sender's rsync composed for its remote end
}

// Encode writes a push.
func (m Push) Encode() []byte {
	w := wire.NewWriter()
	w.Array(4)
	writeTree(w, m.Tree)
	w.Uint(m.Batch)
	w.Uint(uint64(m.Lane))
	w.Array(len(m.Argv))
	for _, a := range m.Argv {
		w.String(a)
	}
	return w.Frame()
}

// DecodePush reads a push.
func DecodePush(b []byte) (Push, error) {
	r := wire.NewReader(b)
	var m Push
	r.Tuple(4)
	m.Tree = readTree(r)
	m.Batch = r.Uint(math.MaxUint64)
	m.Lane = uint8(r.Uint(MaxLane))
	for range r.Array(MaxArgs) {
		m.Argv = append(m.Argv, string(r.Bytes(4096)))
	}
	return m, r.Err()
}

// TreeOf reads the name of the tree that a frame is about: the first element of
// every message.
func TreeOf(b []byte) (string, error) {
	r := wire.NewReader(b)
	r.Array(16)
	s := readTree(r)
	return s, r.Err()
}
