package session

import (
	"bufio"
	"bytes"
	"io"
	"net/netip"
	"testing"

	"github.com/clsync/clsync/signature"
)

func FuzzFrame(f *testing.F) {
	good := appendFrame(nil, frame{1, []byte("payload")})
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(append(bytes.Clone(good), appendFrame(nil, frame{typ: typePing})...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{0, 0, 0, 0, 0xf3, 0, 0, 0, 0})
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		var again []byte
		for {
			fr, err := readFrame(r, 1<<16)
			if err != nil {
				break
			}
			if len(fr.payload) > 1<<16 {
				t.Fatalf("%d bytes", len(fr.payload))
			}
			again = appendFrame(again, fr)
			var w bytes.Buffer
			if err := writeFrame(&w, fr); err != nil || !bytes.HasSuffix(again, w.Bytes()) {
				t.Fatalf("written in two ways: %v", err)
			}
		}
		if !bytes.HasPrefix(b, again) {
			t.Fatal("what was read is not what was there")
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add(hello{instance: instance{1, 2}, listen: netip.MustParseAddrPort("10.0.0.1:7"), payload: []byte("x")}.encode())
	f.Add(hello{listen: netip.MustParseAddrPort("[fe80::1%eth0]:65535"), ended: term{instance{3}, 1 << 60}}.encode())
	f.Add([]byte{0x96, 1})
	f.Add([]byte(nil))
	f.Add(decline{true, "why"}.encode())
	f.Add(encodeKeep(1 << 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := decodeHello(b); err == nil {
			again, err := decodeHello(h.encode())
			if err != nil || again.instance != h.instance || again.listen != h.listen || again.ended != h.ended || !bytes.Equal(again.payload, h.payload) {
				t.Fatalf("%+v is read back as %+v, %v", h, again, err)
			}
		}
		if d, err := decodeDecline(b); err == nil {
			if again, err := decodeDecline(d.encode()); err != nil || again != d {
				t.Fatalf("%+v is read back as %+v, %v", d, again, err)
			}
		}
		if n, err := decodeKeep(b); err == nil {
			if again, err := decodeKeep(encodeKeep(n)); err != nil || again != n {
				t.Fatalf("%d is read back as %d, %v", n, again, err)
			}
		}
	})
}

func chunk(kind byte, body string) []byte {
	b := make([]byte, chunkHead, chunkHead+len(body))
	putHead(b, kind, len(body))
	return append(b, body...)
}

// FuzzStream reads a stream from a hostile peer.
func FuzzStream(f *testing.F) {
	whole := bytes.Join([][]byte{
		chunk(kindData, "abc"), chunk(kindStderr, "oops"), chunk(kindData, "d"),
		chunk(kindEOF, ""), chunk(kindExit, "\x00\x00\x00\x0bfull"), chunk(kindFin, ""),
	}, nil)
	f.Add(whole)
	f.Add(whole[:len(whole)-6])
	f.Add(chunk(kindFin, ""))
	f.Add(append(chunk(kindEOF, ""), chunk(kindData, "late")...))
	f.Add(append(chunk(kindExit, "\xff\xff\xff\xff"), chunk(kindExit, "\x00\x00\x00\x00")...))
	f.Add([]byte{kindData, 0, 0, 0})
	f.Add([]byte{kindData, 0xff, 0xff, 0xff})
	f.Add([]byte{kindOpen, 0, 0, 1, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		l := &line{r: bufio.NewReader(bytes.NewReader(b)), of: &streams{}, dead: make(chan struct{})}
		s := newStream(nil, l, signature.NodeID{}, nil, func() {})
		s.hearing = true
		data, err := io.ReadAll(s)
		if len(data) > len(b) {
			t.Fatalf("%d bytes out of %d", len(data), len(b))
		}
		if err == nil && !bytes.Contains(b, []byte{kindEOF, 0, 0, 0}) {
			t.Fatal("an end that nobody said")
		}
		if _, _, err := s.Exit(); err == nil && s.exited == nil {
			t.Fatal("an exit that nobody said")
		}
		if len(s.Stderr()) > maxStderr {
			t.Fatal("stderr is not bounded")
		}
	})
}
