package session

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"unicode/utf8"
)

// Kinds of chunks of a stream.
const (
	kindOpen   = 1 // the header
	kindAccept = 2
	kindReject = 3 // the reason
	kindData   = 4
	kindStderr = 5
	kindExit   = 6 // the code (4 bytes), the reason
	kindEOF    = 7 // no more data
	kindFin    = 8 // no more chunks
)

const (
	chunkHead = 4
	maxChunk  = 64 << 10 // with its head: four full TLS records
	maxData   = maxChunk - chunkHead
)

// putHead writes a chunk's head into the first bytes of b.
func putHead(b []byte, kind byte, n int) {
	binary.BigEndian.PutUint32(b, uint32(kind)<<24|uint32(n))
}

// readHead reads a chunk's head and refuses one that no kind has.
func readHead(r *bufio.Reader) (kind byte, n int, err error) {
	var b [chunkHead]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, 0, err
	}
	head := binary.BigEndian.Uint32(b[:])
	kind, n = byte(head>>24), int(head&0xffffff)
	least, most := 0, 0
	switch kind {
	case kindOpen:
		most = MaxHeader
	case kindReject:
		most = MaxReason
	case kindData, kindStderr:
		least, most = 1, maxData
	case kindExit:
		least, most = 4, 4+MaxReason
	case kindAccept, kindEOF, kindFin:
	default:
		return 0, 0, fmt.Errorf("%w: chunk of kind %d", ErrFrame, kind)
	}
	if n < least || n > most {
		return 0, 0, fmt.Errorf("%w: chunk of kind %d with %d bytes", ErrFrame, kind, n)
	}
	return kind, n, nil
}

// An exit is how a program at the other end ended.
type exit struct {
	code   int
	reason string
}

func (e exit) encode() []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(int32(e.code)))
	return append(b, cut(e.reason)...)
}

func decodeExit(b []byte) exit {
	return exit{int(int32(binary.BigEndian.Uint32(b))), printable(b[4:])}
}

// printable keeps a peer's text from being anything but text.
func printable(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return fmt.Sprintf("%q", b)
}

func rejectChunk(reason string) []byte {
	reason = cut(reason)
	b := make([]byte, chunkHead, chunkHead+len(reason))
	putHead(b, kindReject, len(reason))
	return append(b, reason...)
}
