package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/test/cluster"
	"github.com/clsync/clsync/transfer/message"
	"github.com/clsync/clsync/transfer/rsync"
)

// A lane is a data stream that the rogue opens, as rsync's way to its peer.
type lane struct {
	r    *rogue
	c    *tls.Conn
	br   *bufio.Reader
	push message.Push
	argv func(argv []string) []string // what the rogue makes of rsync's arguments

	mu   sync.Mutex
	rest int
	exit []byte
}

// Kinds of chunks.
const (
	chunkOpen, chunkAccept, chunkReject = 1, 2, 3
	chunkData, chunkStderr, chunkExit   = 4, 5, 6
	chunkEOF, chunkFin                  = 7, 8
)

func (l *lane) chunk(kind byte, b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	head := binary.BigEndian.AppendUint32(nil, uint32(kind)<<24|uint32(len(b)))
	_, err := l.c.Write(append(head, b...))
	return err
}

func (l *lane) head() (kind byte, n int, err error) {
	var b [4]byte
	_, err = io.ReadFull(l.br, b[:])
	return b[0], int(binary.BigEndian.Uint32(b[:]) & 0xffffff), err
}

// open opens the stream by hand and returns why it was rejected, if it was.
func (l *lane) open(header []byte) (reject string, err error) {
	l.c = l.r.dial()
	l.br = bufio.NewReader(l.c)
	if _, err := l.c.Write([]byte{2}); err != nil {
		return "", err
	}
	if err := l.chunk(chunkOpen, header); err != nil {
		return "", err
	}
	kind, n, err := l.head()
	if err != nil || kind == chunkAccept {
		return "", err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(l.br, b)
	return fmt.Sprintf("rejected: %s", b), err
}

func (l *lane) Start(argv []string) error {
	l.push.Argv = argv
	if l.argv != nil {
		l.push.Argv = l.argv(slices.Clone(argv))
	}
	reject, err := l.open(l.push.Encode())
	if err == nil && reject != "" {
		err = fmt.Errorf("%s", reject)
	}
	return err
}

func (l *lane) Read(p []byte) (int, error) {
	for l.rest == 0 {
		kind, n, err := l.head()
		if err != nil {
			return 0, err
		}
		switch kind {
		case chunkData:
			l.rest = n
		case chunkEOF:
			return 0, io.EOF
		default:
			b := make([]byte, n)
			if _, err := io.ReadFull(l.br, b); err != nil {
				return 0, err
			}
			if kind == chunkExit {
				l.exit = b
			}
		}
	}
	n, err := l.br.Read(p[:min(len(p), l.rest)])
	l.rest -= n
	return n, err
}

func (l *lane) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		k := min(len(p), 64<<10-4)
		if err := l.chunk(chunkData, p[:k]); err != nil {
			return n, err
		}
		n, p = n+k, p[k:]
	}
	return n, nil
}

func (l *lane) CloseWrite() error { return l.chunk(chunkEOF, nil) }

func (l *lane) Exit() (int, string, error) {
	for l.exit == nil {
		kind, n, err := l.head()
		if err != nil {
			return 0, "", err
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(l.br, b); err != nil {
			return 0, "", err
		}
		if kind == chunkExit {
			l.exit = b
		}
	}
	return int(int32(binary.BigEndian.Uint32(l.exit))), string(l.exit[4:]), nil
}

func (l *lane) Close() error {
	if l.c == nil {
		return nil
	}
	_ = l.chunk(chunkFin, nil)
	return l.c.NetConn().Close()
}

// push runs rsync as the sender of a batch, out of dir.
func (r *rogue) push(w message.Want, dir string, argv func([]string) []string, names ...signature.Path) error {
	r.t.Helper()
	d, err := os.Open(dir)
	must(r.t, err)
	defer d.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	version, err := rsync.Probe(ctx, "rsync")
	must(r.t, err)
	_, err = rsync.Send(ctx, rsync.SendSpec{
		Binary: version.Path, Helper: []string{cluster.Binary(r.t, false), "rsh"}, Dir: d,
		Lane: rsync.Lane(w.Lane), Batch: fmt.Sprintf("b%d", w.Batch), Names: names,
	}, &lane{r: r, push: message.Push{Tree: w.Tree, Batch: w.Batch, Lane: w.Lane}, argv: argv})
	return err
}

func (r *rogue) done(w message.Want, answers ...message.Answer) {
	r.t.Helper()
	r.send(message.TypeDone, message.Done{Tree: w.Tree, Batch: w.Batch, Answers: answers}.Encode())
}

// TestRoguePush_I7 has a member lie about contents: it is asked for one and pushes
// something else, in other words, or unasked.
func TestRoguePush_I7(t *testing.T) {
	t.Parallel()
	c, a, _ := rogueCluster(t)
	src := t.TempDir()
	const content = "what its version names\n"
	write(t, filepath.Join(src, "good"), content)
	for _, n := range []string{escape, "bad", "answers", "argv", "argv-path", "lane"} {
		write(t, filepath.Join(src, n), "something else\n")
	}
	must(t, os.MkdirAll(filepath.Join(src, "deep"), 0o755))
	write(t, filepath.Join(src, "deep", escape), "something else\n")
	must(t, os.Symlink("/etc/passwd", filepath.Join(src, "link")))
	must(t, os.Symlink("../../..", filepath.Join(src, "up-"+escape)))

	header := func(p message.Push) func(r *rogue) {
		return func(r *rogue) {
			l := &lane{r: r}
			reject, err := l.open(p.Encode())
			if err == nil && reject == "" {
				r.t.Error("accepted")
			}
		}
	}
	attacks := []struct {
		name, reason string
		stays        bool // the session
		do           func(r *rogue)
	}{
		{"unasked", "no such batch", false, header(message.Push{Tree: "data", Batch: 1 << 50, Lane: 1})},
		{"header", "malformed", false, func(r *rogue) {
			if _, err := (&lane{r: r}).open([]byte("noise")); err != nil {
				r.t.Log(err)
			}
		}},
		{"argv", "not ours", false, func(r *rogue) {
			w := r.tempt("argv", "promised: argv")
			err := r.push(w, src, func(argv []string) []string {
				return slices.Insert(argv, len(argv)-2, "--delete")
			}, "argv")
			if err == nil {
				r.t.Error("accepted")
			}
		}},
		{"argv-path", "not ours", false, func(r *rogue) {
			w := r.tempt("argv-path", "promised: argv-path")
			err := r.push(w, src, func(argv []string) []string {
				argv[len(argv)-1] = "../../../"
				return argv
			}, "argv-path")
			if err == nil {
				r.t.Error("accepted")
			}
		}},
		{"lane", "not as it was asked for", false, func(r *rogue) {
			w := r.tempt("lane", "promised: lane")
			header(message.Push{Tree: "data", Batch: w.Batch, Lane: 2})(r)
		}},
		{"answers", "answers", false, func(r *rogue) { r.done(r.tempt("answers", "promised: answers"), message.Sealed, message.Sealed) }},
		{"wrong-content", "not what version", true, func(r *rogue) {
			w := r.tempt("bad", "promised: bad")
			must(r.t, r.push(w, src, nil, "bad"))
			r.done(w, message.Sealed)
		}},
		{"link", "no file", true, func(r *rogue) {
			w := r.tempt("link", "promised: link")
			must(r.t, r.push(w, src, nil, "link"))
			r.done(w, message.Sealed)
		}},
	}
	for _, at := range attacks {
		t.Run(at.name, func(t *testing.T) {
			r := newRogue(t, c, a, "rogue-"+at.name)
			r.connect()
			at.do(r)
			r.reported(at.reason)
			if !at.stays {
				r.caught()
			}
			_ = r.conn.NetConn().Close()
			unharmed(t, c, at.name)
		})
	}
	t.Run("extra-names", func(t *testing.T) {
		r := newRogue(t, c, a, "rogue-extra")
		r.connect()
		w := r.tempt("good", content)
		must(t, r.push(w, src, nil, "good", escape, signature.Path("deep/"+escape), signature.Path("up-"+escape)))
		r.done(w, message.Sealed)
		c.Until("landed", wait, func() string {
			if got, err := os.ReadFile(a.Path("good")); err != nil || string(got) != content {
				return fmt.Sprintf("%q, %v", got, err)
			}
			return ""
		})
		unharmed(t, c, "extra", "good")
		c.Until("without the extra names", wait, func() string {
			return strings.TrimSpace(command(t, "find", a.Tree(), "-name", "*"+escape+"*"))
		})
	})
}

// TestRogueFlood_I12 has a member send cuts that never end, and actors that nobody
// ever was. Memory stays bounded, and what the others keep is told to all as before.
func TestRogueFlood_I12(t *testing.T) {
	t.Parallel()
	c, a, _ := rogueCluster(t)
	most := 0
	watch := func() {
		most = max(most, resident(t, a))
	}
	t.Run("million", func(t *testing.T) {
		r := newRogue(t, c, a, "rogue-million")
		r.connect()
		const each = 1 << 13
		page := uint64(0)
		for ; ; page++ {
			ls := make([][]byte, each)
			for i := range ls {
				seq := page*each + uint64(i) + 1
				v := signature.Version{Dot: r.dot(seq), Sig: signature.Signature{Type: signature.Absent}}
				ls[i] = listing(fmt.Sprintf("%x", seq), v)
			}
			if !r.try(encodeFrame(message.TypeCut, r.page(1, page, false, nil, ls...))) {
				break
			}
			if page%16 == 0 {
				watch()
			}
			if page > 1<<12 {
				t.Fatal("32 million listings were taken")
			}
		}
		t.Logf("%d listings sent; resident %d MiB at most", page*each, most>>10)
		r.caught()
		r.reported("no end")
		if page*each < 1<<20 {
			t.Errorf("refused after %d listings: trees of that size exist", page*each)
		}
		unharmed(t, c, "million")
	})
	t.Run("actors", func(t *testing.T) {
		r := newRogue(t, c, a, "rogue-actors")
		r.connect()
		for range 2 {
			k := signature.Knowledge{}
			for range 3000 {
				r.cut++
				k[signature.Actor{Node: r.self.Node, Incarnation: r.cut}] = 1
			}
			r.list(k)
		}
		r.reported("actors")
		_ = r.conn.NetConn().Close()
		unharmed(t, c, "actors")
	})
	t.Run("heads", func(t *testing.T) {
		r := newRogue(t, c, a, "rogue-heads")
		r.connect()
		before := resident(t, a)
		for n := range uint64(300) {
			k := signature.Knowledge{}
			for i := range uint64(4000) {
				k[signature.Actor{Node: r.self.Node, Incarnation: n<<20 | i}] = 1
			}
			r.send(message.TypeHead, message.Head{Tree: "data", Known: k, Landed: k}.Encode())
		}
		unharmed(t, c, "heads")
		if after := resident(t, a); after > before+256<<10 {
			t.Errorf("resident memory rose from %d to %d KiB", before, after)
		}
	})
	watch()
	if most > 3<<20 {
		t.Errorf("resident memory rose to %d MiB", most>>10)
	}
}
