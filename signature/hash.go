package signature

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
)

// chunk is how much is read between two looks at the context.
const chunk = 1 << 20

var chunks = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}

// EmptyHash is the hash of no bytes.
var EmptyHash = Hash{Algorithm: SHA256, Sum: sha256.Sum256(nil)}

// String returns the hash as people and file names want it.
func (h Hash) String() string {
	if h.Algorithm == NoHash {
		return "none"
	}
	return hex.EncodeToString(h.Sum[:])
}

// HashContent reads r to its end and returns the hash and the number of bytes.
func HashContent(ctx context.Context, r io.Reader) (Hash, int64, error) {
	buf := chunks.Get().(*[]byte)
	defer chunks.Put(buf)
	sum := sha256.New()
	var size int64
	for {
		if err := ctx.Err(); err != nil {
			return Hash{}, 0, fmt.Errorf("hash: %w", err)
		}
		n, err := io.ReadFull(r, *buf)
		sum.Write((*buf)[:n])
		size += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			h := Hash{Algorithm: SHA256}
			sum.Sum(h.Sum[:0])
			return h, size, nil
		}
		if err != nil {
			return Hash{}, 0, fmt.Errorf("hash: %w", err)
		}
	}
}
