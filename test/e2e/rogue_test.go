package e2e

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/wire"
	"github.com/clsync/clsync/test/cluster"
	"github.com/clsync/clsync/transfer/message"
	"github.com/clsync/clsync/transfer/trust"
)

// A rogue is a member of the cluster that keeps to nothing. It speaks the protocol
// by hand, from PROTOCOL.md, since our own writers would refuse what it sends.
type rogue struct {
	t      *testing.T
	c      *cluster.Cluster
	victim *cluster.Node
	id     *trust.Identity
	name   string
	self   signature.Actor
	theirs signature.Actor     // the victim
	known  signature.Knowledge // of the victim, when the tree was begun

	conn   *tls.Conn
	mu     sync.Mutex // of writes
	frames chan rawFrame
	gone   chan struct{} // closed when the victim has ended the session
	cut    uint64
}

type rawFrame struct {
	typ     byte
	payload []byte
}

// rogueHost is the host in whose network the rogue is.
const rogueHost = 2

// newRogue makes a member with a node key of its own. Each attack has another one:
// who was caught is left alone for longer each time.
func newRogue(t *testing.T, c *cluster.Cluster, victim *cluster.Node, name string) *rogue {
	t.Helper()
	keys, err := trust.ReadClusterKeys(filepath.Join(victim.Dir, "cluster.key"))
	must(t, err)
	key, err := trust.GenerateNodeKey()
	must(t, err)
	r := &rogue{t: t, c: c, victim: victim, name: name, frames: make(chan rawFrame, 64), gone: make(chan struct{})}
	r.id, err = trust.NewIdentity("test", name, key, keys)
	must(t, err)
	r.self = signature.Actor{Node: r.id.ID(), Incarnation: 1 << 60}
	r.theirs.Node, err = signature.ParseNodeID(victim.Status().Node.ID)
	must(t, err)
	return r
}

// dial opens a TLS connection from the rogue's network.
func (r *rogue) dial() (c *tls.Conn) {
	r.t.Helper()
	must(r.t, r.c.Net.Do(rogueHost, func() error {
		raw, err := net.DialTimeout("tcp4", r.victim.Addr+":7370", 5*time.Second)
		if err != nil {
			return err
		}
		c = tls.Client(raw, r.id.TLSClient(r.theirs.Node))
		return nil
	}))
	must(r.t, c.SetDeadline(time.Now().Add(time.Minute)))
	must(r.t, c.Handshake())
	r.t.Cleanup(func() { _ = c.NetConn().Close() })
	return c
}

func encodeFrame(typ byte, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(payload)))
	b = append(append(b, typ), payload...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func tuple(parts ...any) []byte {
	w := wire.NewWriter()
	w.Array(len(parts))
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			w.Uint(uint64(p))
		case uint64:
			w.Uint(p)
		case bool:
			w.Bool(p)
		case string:
			w.String(p)
		case raw:
			w.Raw(p)
		default:
			w.Bytes(p.([]byte))
		}
	}
	return w.Frame()
}

// raw is a value that is encoded already.
type raw []byte

// connect opens a session and begins the tree.
func (r *rogue) connect() {
	t := r.t
	t.Helper()
	r.conn = r.dial()
	br := bufio.NewReader(r.conn)
	instance := make([]byte, 16)
	_, _ = rand.Read(instance) // never fails
	hello := tuple(1, instance, "10.99.0.3:7399", make([]byte, 16), 0, tuple(message.Version))
	r.write(append([]byte{1}, encodeFrame(0xf0, hello)...))
	f, err := readRaw(br)
	must(t, err)
	if f.typ != 0xf0 {
		t.Fatalf("frame %#x %q instead of hello", f.typ, f.payload)
	}
	if r.id.ID().Compare(r.theirs.Node) < 0 { // the verdict is ours
		r.write(encodeFrame(0xf1, tuple(1)))
	} else if f, err = readRaw(br); err != nil || f.typ != 0xf1 {
		t.Fatalf("frame %#x %q instead of keep: %v", f.typ, f.payload, err)
	}
	go func() {
		defer close(r.gone)
		for {
			f, err := readRaw(br)
			if err != nil || f.typ == 0xf4 {
				return
			}
			if f.typ != 0xf3 {
				r.frames <- f
			}
		}
	}()
	go func() {
		for {
			select {
			case <-r.gone:
				return
			case <-time.After(time.Second):
				r.try(encodeFrame(0xf3, nil))
			}
		}
	}()
	r.send(message.TypeHead, message.Head{Tree: "data", Begin: true}.Encode())
	h, err := message.DecodeHead(r.await(message.TypeHead))
	must(t, err)
	r.known = h.Known
	for a := range h.Known {
		if a.Node == r.theirs.Node {
			r.theirs = a
		}
	}
}

func readRaw(br *bufio.Reader) (f rawFrame, err error) {
	var head [5]byte
	if _, err := io.ReadFull(br, head[:]); err != nil {
		return f, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:])+4)
	_, err = io.ReadFull(br, body)
	return rawFrame{head[4], body[:len(body)-4]}, err
}

func (r *rogue) try(b []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.conn.Write(b)
	return err == nil
}

func (r *rogue) write(b []byte) {
	r.t.Helper()
	if !r.try(b) {
		r.t.Fatal("the victim does not take what the rogue sends")
	}
}

func (r *rogue) send(typ byte, payload []byte) {
	r.t.Helper()
	r.write(encodeFrame(typ, payload))
}

// await returns the next frame of that type.
func (r *rogue) await(typ byte) []byte {
	r.t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case f := <-r.frames:
			if f.typ == typ {
				return f.payload
			}
		case <-r.gone:
			r.t.Fatalf("the session ended before a frame of type %d", typ)
		case <-late:
			r.t.Fatalf("no frame of type %d", typ)
		}
	}
}

// page encodes a page by hand.
func (r *rogue) page(cut, page uint64, last bool, k signature.Knowledge, listings ...[]byte) []byte {
	w := wire.NewWriter()
	signature.WriteKnowledge(w, k)
	l := wire.NewWriter()
	l.Array(len(listings))
	return tuple("data", cut, page, last, raw(append(l.Frame(), bytes.Join(listings, nil)...)), raw(w.Frame()))
}

// list sends a whole cut.
func (r *rogue) list(k signature.Knowledge, listings ...[]byte) {
	r.t.Helper()
	r.cut++
	r.send(message.TypeCut, r.page(r.cut, 0, true, k, listings...))
}

func listing(path string, vs ...signature.Version) []byte {
	w := wire.NewWriter()
	w.Array(2)
	w.String(path)
	w.Array(len(vs))
	for _, v := range vs {
		signature.WriteVersion(w, v)
	}
	return w.Frame()
}

func (r *rogue) dot(seq uint64) signature.Dot { return signature.Dot{Actor: r.self, Seq: seq} }

func folder(d signature.Dot, stamp int64) signature.Version {
	return signature.Version{Dot: d, Stamp: stamp, Sig: signature.Signature{Type: signature.Folder, Facts: signature.Facts{Mode: 0o755}}}
}

func file(d signature.Dot, content string) signature.Version {
	return signature.Version{Dot: d, Stamp: 1, Sig: signature.Signature{
		Type: signature.File, Facts: signature.Facts{Mode: 0o644}, Size: int64(len(content)),
		Hash: signature.Hash{Algorithm: signature.SHA256, Sum: sha256.Sum256([]byte(content))},
	}}
}

// knows returns a knowledge of a single actor.
func knows(d signature.Dot) signature.Knowledge { return signature.Knowledge{d.Actor: d.Seq} }

// tempt lists a file and waits until the victim asks for it.
func (r *rogue) tempt(path, content string) message.Want {
	r.t.Helper()
	r.list(knows(r.dot(1)), listing(path, file(r.dot(1), content)))
	w, err := message.DecodeWant(r.await(message.TypeWant))
	must(r.t, err)
	return w
}

// caught waits until the victim has ended the session.
func (r *rogue) caught() {
	r.t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case <-r.frames:
		case <-r.gone:
			return
		case <-late:
			r.t.Fatal("the session goes on")
		}
	}
}

// reported waits until the victim's status says why the rogue was refused.
func (r *rogue) reported(reason string) {
	r.t.Helper()
	r.c.Until("reported", 10*time.Second, func() string {
		s := r.victim.Status()
		for _, x := range s.Refused {
			if x.Name == r.name && strings.Contains(x.Reason, reason) {
				return ""
			}
		}
		return fmt.Sprintf("want %s for %q, have %+v", r.name, reason, s.Refused)
	})
}

// rogueCluster is two daemons and a place for the rogue.
func rogueCluster(t *testing.T) (c *cluster.Cluster, a, b *cluster.Node) {
	t.Helper()
	c = cluster.New(t, cluster.Options{Nodes: 3, Stopped: true})
	a, b = c.Nodes[0], c.Nodes[1]
	a.Start()
	b.Start()
	c.WaitConnected(wait)
	write(t, a.Path("kept"), "kept\n")
	return c, a, b
}

// unharmed fails the test if the cluster does not go on, or if a tree shows anything
// but what it should, or if anything was written outside.
func unharmed(t *testing.T, c *cluster.Cluster, round string, allowed ...string) {
	t.Helper()
	a, b := c.Nodes[0], c.Nodes[1]
	for _, n := range []*cluster.Node{a, b} {
		if !n.Running() {
			t.Fatalf("%s has ended", n.Name)
		}
		write(t, n.Path("ok-"+round+"-"+n.Name), round)
	}
	c.Until("replicated", wait, func() string {
		for _, n := range []*cluster.Node{a, b} {
			for _, of := range []*cluster.Node{a, b} {
				if got, err := os.ReadFile(n.Path("ok-" + round + "-" + of.Name)); err != nil || string(got) != round {
					return fmt.Sprintf("%s: file of %s: %q, %v", n.Name, of.Name, got, err)
				}
			}
			if got, err := os.ReadFile(n.Path("kept")); err != nil || string(got) != "kept\n" {
				return fmt.Sprintf("%s: kept: %q, %v", n.Name, got, err)
			}
		}
		return ""
	})
	for _, n := range []*cluster.Node{a, b} {
		entries, err := os.ReadDir(n.Tree())
		must(t, err)
		for _, e := range entries {
			ok := e.Name() == signature.Private || e.Name() == "kept" || strings.HasPrefix(e.Name(), "ok-")
			for _, x := range allowed {
				ok = ok || e.Name() == x
			}
			if !ok {
				t.Errorf("%s: %s stands in the tree", n.Name, e.Name())
			}
		}
		out, err := exec.Command("find", n.Dir, os.TempDir(), "-name", "*"+escape+"*",
			"-not", "-path", "*/staging/*", "-not", "-path", "*/TestRogue*").Output() // nor what the rogue pushes from
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) { // find meets files that vanish
			t.Fatal(err)
		}
		if len(out) > 0 {
			t.Errorf("%s: written outside: %s", n.Name, out)
		}
	}
}

// escape is in the name of everything that must not be written.
const escape = "rogue-escape"

// TestRogueFrames_I7 has a member send what no node sends. Each time the daemon ends
// its session, says so in its status, and goes on with the others.
func TestRogueFrames_I7(t *testing.T) {
	t.Parallel()
	c, a, b := rogueCluster(t)
	bID, err := signature.ParseNodeID(b.Status().Node.ID)
	must(t, err)
	type attack struct {
		name, reason string
		do           func(r *rogue)
	}
	attacks := []attack{
		{"own-dot", "never made", func(r *rogue) {
			d := signature.Dot{Actor: r.theirs, Seq: r.known[r.theirs] + 1<<30}
			r.list(knows(d), listing(escape, folder(d, 1)))
		}},
		{"own-knowledge", "which has made", func(r *rogue) {
			r.list(signature.Knowledge{r.theirs: r.known[r.theirs] + 1<<30})
		}},
		{"own-head", "which has made", func(r *rogue) {
			r.send(message.TypeHead, message.Head{Tree: "data", Known: signature.Knowledge{r.theirs: 1 << 40}}.Encode())
		}},
		{"absurd-seq", "at most", func(r *rogue) {
			r.list(knows(r.dot(1<<60)), listing(escape, folder(r.dot(1<<60), 1)))
		}},
		{"absurd-knowledge", "at most", func(r *rogue) { r.list(knows(r.dot(1 << 60))) }},
		{"zero-seq", "malformed", func(r *rogue) {
			r.list(nil, listing(escape, folder(signature.Dot{Actor: r.self}, 1)))
		}},
		{"third-dot", "two versions are named", func(r *rogue) {
			// What a lists for a path of b's, under b's dot, with other facts: b's name is
			// not enough where the dot is known already.
			var l signature.Listing
			for l.Path == "" {
				p, err := message.DecodeCutPage(r.await(message.TypeCut))
				must(r.t, err)
				for _, x := range p.Listings {
					if x.Versions[0].Dot.Actor.Node == bID {
						l = x
					}
				}
			}
			v := l.Versions[0]
			v.Sig.UID = 12345
			r.list(knows(v.Dot), listing(string(l.Path), v))
			r.reported("two versions are named")
			_ = r.conn.NetConn().Close() // a clone is reported, and not hung up on
		}},
		{"version-order", "out of order", func(r *rogue) {
			r.list(knows(r.dot(2)), listing(escape, folder(r.dot(1), 1), folder(r.dot(2), 2)))
		}},
		{"same-dot", "out of order", func(r *rogue) {
			r.list(knows(r.dot(1)), listing(escape, folder(r.dot(1), 1), folder(r.dot(1), 1)))
		}},
		{"not-known", "does not cover", func(r *rogue) { r.list(nil, listing(escape, folder(r.dot(1), 1))) }},
		{"no-version", "no version", func(r *rogue) { r.list(r.known, listing("kept")) }},
		{"unknown-type", "type", func(r *rogue) { r.list(knows(r.dot(1)), listing(escape, signature.Version{Dot: r.dot(1)})) }},
		{"page-1-first", "out of order", func(r *rogue) { r.send(message.TypeCut, r.page(1, 1, true, nil)) }},
		{"page-left-out", "out of order", func(r *rogue) {
			r.send(message.TypeCut, r.page(1, 0, false, nil, listing(escape, folder(r.dot(1), 1))))
			r.send(message.TypeCut, r.page(1, 2, true, knows(r.dot(1))))
		}},
		{"page-of-other-cut", "out of order", func(r *rogue) {
			r.send(message.TypeCut, r.page(1, 0, false, nil, listing(escape, folder(r.dot(1), 1))))
			r.send(message.TypeCut, r.page(2, 1, true, knows(r.dot(1))))
		}},
		{"cut-in-cut", "begins before", func(r *rogue) {
			r.send(message.TypeCut, r.page(1, 0, false, nil, listing(escape, folder(r.dot(1), 1))))
			r.send(message.TypeCut, r.page(2, 0, true, knows(r.dot(1))))
		}},
		{"early-knowledge", "before the last page", func(r *rogue) {
			r.send(message.TypeCut, r.page(1, 0, false, knows(r.dot(1)), listing(escape, folder(r.dot(1), 1))))
		}},
		{"empty-page", "before the last page", func(r *rogue) { r.send(message.TypeCut, r.page(1, 0, false, nil)) }},
		{"ack", "ack of cut", func(r *rogue) { r.send(message.TypeAck, message.Ack{Tree: "data", Cut: 1 << 40}.Encode()) }},
		{"frame-type", "frame type 99", func(r *rogue) { r.send(99, message.Ack{Tree: "data", Cut: 1}.Encode()) }},
		{"own-frame-type", "malformed", func(r *rogue) { r.send(0xf9, nil) }},
		{"checksum", "checksum", func(r *rogue) {
			f := encodeFrame(message.TypeAck, nil)
			f[len(f)-1]++
			r.write(f)
		}},
		{"long-frame", "at most", func(r *rogue) { r.write([]byte{0x7f, 0xff, 0xff, 0xff, message.TypeCut}) }},
		{"long-array", "malformed", func(r *rogue) { r.send(message.TypeCut, []byte{0xdd, 0x7f, 0xff, 0xff, 0xff}) }},
		{"begins", "begun", func(r *rogue) {
			for r.try(encodeFrame(message.TypeHead, message.Head{Tree: "data", Known: r.known, Begin: true}.Encode())) {
				select {
				case <-r.frames:
				case <-r.gone:
					return
				default:
				}
			}
		}},
	}
	for i, path := range []string{
		"../" + escape, "a/../../" + escape, os.TempDir() + "/" + escape, "a\x00" + escape, ".clsync/" + escape,
		".clsync/staging/" + escape, ".clsync", "", ".", "..", "a//" + escape, "./" + escape, escape + "/", strings.Repeat("n", 256), strings.Repeat("p/", 2048) + "p",
	} {
		attacks = append(attacks, attack{fmt.Sprintf("path-%d", i), "malformed frame", func(r *rogue) {
			r.list(knows(r.dot(1)), listing(path, folder(r.dot(1), 1)))
		}})
	}
	for typ := message.TypeHead; typ <= message.TypeDone; typ++ {
		attacks = append(attacks, attack{fmt.Sprintf("noise-%d", typ), "malformed", func(r *rogue) {
			noise := make([]byte, 4096)
			for {
				_, _ = rand.Read(noise) // never fails
				if noise[0] < 0xc4 || noise[0] > 0xc6 {
					break
				}
			}
			r.send(typ, append([]byte{0x96, 0xc4, 4, 'd', 'a', 't', 'a'}, noise...))
		}})
	}
	for i, at := range attacks {
		t.Run(at.name, func(t *testing.T) {
			r := newRogue(t, c, a, "rogue-"+at.name)
			r.connect()
			at.do(r)
			r.caught()
			r.reported(at.reason)
			if i%8 == 0 || i == len(attacks)-1 {
				unharmed(t, c, at.name)
			}
		})
	}
	unharmed(t, c, "last")
	c.WaitQuiet(wait)
}

// TestRogueHearsay_I7 has a member claim to know what another node will do in a
// thousand years. Taken in, every change of that node would count as superseded.
func TestRogueHearsay_I7(t *testing.T) {
	t.Parallel()
	c, a, b := rogueCluster(t)
	unharmed(t, c, "before")
	bID, err := signature.ParseNodeID(b.Status().Node.ID)
	must(t, err)
	r := newRogue(t, c, a, "rogue-hearsay")
	r.connect()
	k := signature.Knowledge{}
	for actor, seq := range r.known {
		if actor.Node == bID {
			k[actor] = seq + 1<<40
		}
	}
	if len(k) == 0 {
		t.Fatal("a knows nothing of b")
	}
	r.list(k)
	unharmed(t, c, "while-held")
	c.Until("reported", 60*time.Second, func() string {
		for _, x := range a.Status().Refused {
			if x.Name == r.name && strings.Contains(x.Reason, "has not told of") {
				return ""
			}
		}
		return "not listed"
	})
	_ = r.conn.NetConn().Close()
	unharmed(t, c, "after")
}
