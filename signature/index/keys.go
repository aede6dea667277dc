package index

import (
	"encoding/binary"
	"hash/crc32"
	"unsafe"

	"github.com/clsync/clsync/signature"
)

// A bucket is one ordered set of keys. Records hold what is known; dots, hashes
// and inodes say where to find it and are derived from the records alone.
type bucket uint8

const (
	records bucket = iota // path: record
	dots                  // node, incarnation, seq, path: nothing
	hashes                // the first bytes of the sum, path: nothing
	inodes                // device, inode, path: nothing
	ledger                // path: ledger entry
	metas                 // name: value
	buckets
)

var bucketNames = [buckets]string{"records", "dots", "hashes", "inodes", "ledger", "meta"}

const (
	actorLen = 16 + 8
	dotLen   = actorLen + 8
	sumLen   = 12 // enough to find by; the record has the rest
	inodeLen = 16
	crcLen   = 4
	maxKey   = dotLen + signature.MaxPath
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is over key and value, so that a value cannot change its key unnoticed.
func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// bytesOf lends a key to be read as bytes, without copying it.
func bytesOf(key string) []byte { return unsafe.Slice(unsafe.StringData(key), len(key)) }

// seal appends the checksum to value.
func seal(key string, value []byte) []byte {
	return binary.BigEndian.AppendUint32(value, checksum(bytesOf(key), value))
}

// unseal returns the value without its checksum, and whether that is right.
func unseal(key, sealed []byte) ([]byte, bool) {
	n := len(sealed) - crcLen
	if n < 0 {
		return nil, false
	}
	return sealed[:n:n], checksum(key, sealed[:n]) == binary.BigEndian.Uint32(sealed[n:])
}

// weight is what an entry adds to the sum over all of them. It is a plain sum of
// well-mixed checksums: it changes with each entry that comes, goes or moves to
// another bucket, in any order, without the others being read.
func weight(b bucket, crc uint32) uint64 {
	x := uint64(b+1)<<32 | uint64(crc)
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func weigh(b bucket, sealed []byte) uint64 {
	return weight(b, binary.BigEndian.Uint32(sealed[len(sealed)-crcLen:]))
}

func actorKey(a signature.Actor) []byte {
	b := make([]byte, 0, dotLen)
	b = append(b, a.Node[:]...)
	return binary.BigEndian.AppendUint64(b, a.Incarnation)
}

func dotPrefix(d signature.Dot) string {
	return string(binary.BigEndian.AppendUint64(actorKey(d.Actor), d.Seq))
}

func dotKey(d signature.Dot, p signature.Path) string { return dotPrefix(d) + string(p) }

func splitDotKey(k string) (d signature.Dot, p signature.Path, ok bool) {
	if len(k) <= dotLen {
		return d, "", false
	}
	b := []byte(k[:dotLen])
	copy(d.Actor.Node[:], b)
	d.Actor.Incarnation = binary.BigEndian.Uint64(b[16:])
	d.Seq = binary.BigEndian.Uint64(b[actorLen:])
	return d, signature.Path(k[dotLen:]), true
}

// pastSeq is the least key that is greater than all of a's dots up to seq, and
// false if there is none.
func pastSeq(a signature.Actor, seq uint64) (string, bool) {
	if seq++; seq != 0 {
		return dotPrefix(signature.Dot{Actor: a, Seq: seq}), true
	}
	return pastPrefix(string(actorKey(a)))
}

// pastPrefix is the least key that is greater than all that begin with prefix.
func pastPrefix(prefix string) (string, bool) {
	for n := len(prefix); n > 0; n-- {
		if c := prefix[n-1]; c != 0xff {
			return prefix[:n-1] + string([]byte{c + 1}), true
		}
	}
	return "", false
}

func hashPrefix(h signature.Hash) string { return string(h.Sum[:sumLen]) }

func inodePrefix(dev, ino uint64) string {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, inodeLen), dev)
	return string(binary.BigEndian.AppendUint64(b, ino))
}

// A place is a key in a bucket that only leads to a record.
type place struct {
	bucket bucket
	key    string
}

func (p place) weight() uint64 { return weight(p.bucket, checksum(bytesOf(p.key), nil)) }

// places returns all that lead to r.
func places(r signature.Record) []place {
	ps := make([]place, 0, len(r.Listed)+2)
	for _, v := range r.Listed {
		ps = append(ps, place{dots, dotKey(v.Dot, r.Path)})
	}
	if hasContent(r) {
		ps = append(ps, place{hashes, hashPrefix(r.Shown.Hash) + string(r.Path)})
	}
	if linked(r) {
		ps = append(ps, place{inodes, inodePrefix(r.Mark.Dev, r.Mark.Ino) + string(r.Path)})
	}
	return ps
}

// hasContent tells whether r's path shows a content that can serve for another's.
func hasContent(r signature.Record) bool {
	return r.Held.Form == signature.Plain && r.Shown.Hash.Algorithm != signature.NoHash
}

// linked tells whether r's path was last seen as a name of an inode that can have
// several. One that has one name counts too: when it gets another, only the new name
// need be told of.
func linked(r signature.Record) bool { return r.Shown.Linkable() && r.Mark.Ino != 0 }

// live tells whether anything that exists is listed.
func live(r signature.Record) bool {
	for _, v := range r.Listed {
		if v.Sig.Exists() {
			return true
		}
	}
	return false
}

// leastUnknown returns the least dot that r lists and k does not cover.
func leastUnknown(r signature.Record, k signature.Knowledge) (least signature.Dot, ok bool) {
	for _, v := range r.Listed {
		if !k.Covers(v.Dot) && (!ok || v.Dot.Compare(least) < 0) {
			least, ok = v.Dot, true
		}
	}
	return least, ok
}

// beneath is the prefix of all keys that lie beneath dir.
func beneath(dir signature.Path) string {
	if dir == "" {
		return ""
	}
	return string(dir) + "/"
}
