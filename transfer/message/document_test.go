package message_test

import (
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"os"
	"regexp"
	"strings"
	"testing"

	"crypto/sha256"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/wire"
	"github.com/clsync/clsync/transfer/message"
)

// documented is the one change that PROTOCOL.md shows in bytes.
func documented() (signature.Listing, signature.Knowledge) {
	actor := signature.Actor{Incarnation: 0x1122334455667788}
	for i := range actor.Node {
		actor.Node[i] = byte(i)
	}
	const mtime = 1_700_000_000_123_456_789
	return signature.Listing{Path: "etc/motd", Versions: []signature.Version{{
		Dot:   signature.Dot{Actor: actor, Seq: 7},
		Stamp: mtime,
		Sig: signature.Signature{
			Type: signature.File, Size: 6,
			Facts: signature.Facts{Mode: 0o644, UID: 1000, GID: 8, MTime: mtime,
				Xattrs: signature.EncodeXattrs([]signature.Xattr{{Name: "user.a", Value: "1"}})},
			Hash: signature.Hash{Algorithm: signature.SHA256, Sum: sha256.Sum256([]byte("hello\n"))},
		},
	}}}, signature.Knowledge{actor: 7}
}

// framed puts a payload into a frame, by what PROTOCOL.md says.
func framed(typ byte, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(payload)))
	b = append(append(b, typ), payload...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// TestDocument compares the bytes in PROTOCOL.md with those that are sent.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	l, k := documented()
	w := wire.NewWriter()
	signature.WriteListing(w, l)
	var page []byte
	if err := message.Pages("www", 1, []signature.Listing{l}, k, func(b []byte) error { page = b; return nil }); err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{
		"listing":   w.Frame(),
		"cut frame": framed(message.TypeCut, page),
		"ack frame": framed(message.TypeAck, message.Ack{Tree: "www", Cut: 1}.Encode()),
	}
	blocks := regexp.MustCompile("(?s)```hex ([a-z ]+)\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) != len(want) {
		t.Errorf("%d blocks of bytes in PROTOCOL.md, want %d", len(blocks), len(want))
	}
	for _, b := range blocks {
		var digits strings.Builder
		for line := range strings.Lines(string(b[2])) {
			line, _, _ = strings.Cut(line, "#")
			digits.WriteString(strings.Join(strings.Fields(line), ""))
		}
		if got := hex.EncodeToString(want[string(b[1])]); digits.String() != got {
			t.Errorf("%s:\n have %s\n want %s", b[1], digits.String(), got)
		}
	}
}
