package session

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// Types of our own. Those below are the caller's.
const (
	firstOwnType = 0xf0

	typeHello   = 0xf0
	typeKeep    = 0xf1
	typeDecline = 0xf2
	typePing    = 0xf3
	typeBye     = 0xf4
)

const (
	frameHead = 5
	frameTail = 4
	// maxFrame leaves room for what a hello has beside the caller's payload.
	maxFrame = MaxPayload + 256
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type frame struct {
	typ     byte
	payload []byte
}

// size is what a frame counts for in a queue.
func (f frame) size() int { return frameHead + len(f.payload) + frameTail }

// appendFrame is for frames that fit into one buffer.
func appendFrame(b []byte, f frame) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.payload)))
	b = append(b, f.typ)
	b = append(b, f.payload...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// writeFrame writes f without copying its payload.
func writeFrame(w io.Writer, f frame) error {
	var head [frameHead]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(f.payload)))
	head[4] = f.typ
	sum := crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, f.payload)
	for _, b := range [][]byte{head[:], f.payload, binary.BigEndian.AppendUint32(nil, sum)} {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// readFrame reads one frame whose payload has at most max bytes. The length is
// checked before anything is allocated for it.
func readFrame(r *bufio.Reader, max int) (frame, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if uint64(n) > uint64(max) {
		return frame{}, fmt.Errorf("%w: %d bytes of type %#02x, at most %d", ErrFrame, n, head[4], max)
	}
	body := make([]byte, int(n)+frameTail)
	if _, err := io.ReadFull(r, body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	payload, tail := body[:n:n], body[n:]
	if crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, payload) != binary.BigEndian.Uint32(tail) {
		return frame{}, fmt.Errorf("%w: checksum of type %#02x", ErrFrame, head[4])
	}
	return frame{typ: head[4], payload: payload}, nil
}
