package message_test

import (
	"testing"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/transfer/message"
)

// again fails the fuzz target where what was accepted is not what it says: written
// out and read again it must be accepted, and give the same bytes.
func again[T any](t *testing.T, b []byte, decode func([]byte) (T, error), encode func(T) []byte) {
	m, err := decode(b)
	if err != nil {
		return
	}
	once := encode(m)
	if len(once) > len(b) {
		t.Fatalf("%x is written as %x, which is longer", b, once)
	}
	m, err = decode(once)
	if err != nil {
		t.Fatalf("%x is refused: %v", once, err)
	}
	if twice := encode(m); string(twice) != string(once) {
		t.Fatalf("%x is written as %x", once, twice)
	}
}

func FuzzHead(f *testing.F) {
	_, k := documented()
	f.Add(message.Head{Tree: "www", Known: k, Landed: k, Begin: true}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) { again(t, b, message.DecodeHead, message.Head.Encode) })
}

func FuzzCutPage(f *testing.F) {
	l, k := documented()
	if err := message.Pages("www", 1, []signature.Listing{l, l}, k, func(b []byte) error { f.Add(b); return nil }); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := message.DecodeCutPage(b)
		if err != nil {
			return
		}
		for _, l := range p.Listings {
			if _, err := signature.ParsePath(string(l.Path)); err != nil || len(l.Versions) == 0 {
				t.Fatalf("accepted %q with %d versions: %v", l.Path, len(l.Versions), err)
			}
		}
	})
}

func FuzzAck(f *testing.F) {
	f.Add(message.Ack{Tree: "www", Cut: 1}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) { again(t, b, message.DecodeAck, message.Ack.Encode) })
}

func FuzzWant(f *testing.F) {
	l, _ := documented()
	v := l.Versions[0]
	f.Add(message.Want{Tree: "www", Batch: 1, Lane: 1, Items: []message.Item{{Path: l.Path, Dot: v.Dot, Hash: v.Sig.Hash, Size: 6}}}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) { again(t, b, message.DecodeWant, message.Want.Encode) })
}

func FuzzDone(f *testing.F) {
	f.Add(message.Done{Tree: "www", Batch: 1, Answers: []message.Answer{message.Sealed, message.NotHere}}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) { again(t, b, message.DecodeDone, message.Done.Encode) })
}

func FuzzPush(f *testing.F) {
	f.Add(message.Push{Tree: "www", Batch: 1, Lane: 1, Argv: []string{"batch", "rsync", "--server"}}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) { again(t, b, message.DecodePush, message.Push.Encode) })
}
