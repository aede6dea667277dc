package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clsync/clsync/test/cluster"
)

const (
	blockSize = 4096
	blocks    = 300 << 20 / blockSize
)

// TestRewriteInPlace_I4 rewrites 300 MB in place, front to back, while they are
// pushed. Each block carries its generation and its number. What a reader on b
// sees must be a state that a had: one generation, or the newer one in front of
// the one before it. rsync by itself delivers the reverse, with exit status 0.
func TestRewriteInPlace_I4(t *testing.T) {
	t.Parallel()
	c := connected(t, cluster.Options{Nodes: 2, DiskSize: 2 << 30, TreeConfig: `big_delay = "0s"` + "\n"})
	a, b := c.Nodes[0], c.Nodes[1]
	tmp := a.Beside() + "/big"
	f, err := os.Create(tmp)
	must(t, err)
	defer f.Close()
	must(t, rewrite(f, 1, 0))
	must(t, os.Rename(tmp, a.Path("big")))
	c.WaitIdentical(longWait)

	stop := make(chan struct{})
	var g errgroup.Group
	var states, mixed int
	g.Go(func() error {
		for {
			select {
			case <-stop:
				return nil
			default:
			}
			newest, boundary, err := examine(b.Path("big"))
			if err != nil {
				return fmt.Errorf("b showed what a never had: %w", err)
			}
			states++
			if boundary > 0 {
				mixed++
			}
			if newest == 0 {
				return errors.New("the file is empty")
			}
		}
	})
	const last = 5
	for gen := uint64(2); gen <= last; gen++ {
		must(t, rewrite(f, gen, time.Second))
	}
	c.WaitIdentical(longWait)
	close(stop)
	must(t, g.Wait())
	newest, boundary, err := examine(b.Path("big"))
	if err != nil || newest != last || boundary != 0 {
		t.Errorf("in the end b has generation %d with a boundary at %d, %v", newest, boundary, err)
	}
	if states < 2 {
		t.Errorf("only %d states seen", states)
	}
	t.Logf("b was read %d times, %d of them across a boundary that a had too", states, mixed)
	c.AssertNoStaging()
}

// rewrite writes all blocks in place, front to back, taking about that long.
func rewrite(f *os.File, gen uint64, during time.Duration) error {
	block := make([]byte, blockSize)
	for i := range uint64(blocks) {
		for o := 0; o < blockSize; o += 16 {
			binary.BigEndian.PutUint64(block[o:], gen)
			binary.BigEndian.PutUint64(block[o+8:], i)
		}
		if _, err := f.WriteAt(block, int64(i)*blockSize); err != nil {
			return err
		}
		if i%(blocks/100) == 0 {
			time.Sleep(during / 100) // the pace of the writer
		}
	}
	return nil
}

// examine reads the file and returns the newest generation in it and the block
// at which the one before it begins, 0 if there is none.
func examine(path string) (newest, boundary uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	buf := make([]byte, 256*blockSize)
	var last uint64
	for i := uint64(0); ; {
		n, err := io.ReadFull(f, buf)
		for block := buf[:n]; len(block) >= blockSize; block = block[blockSize:] {
			gen := binary.BigEndian.Uint64(block)
			for o := 0; o < blockSize; o += 16 {
				if binary.BigEndian.Uint64(block[o:]) != gen || binary.BigEndian.Uint64(block[o+8:]) != i {
					return 0, 0, fmt.Errorf("block %d is torn or out of place", i)
				}
			}
			switch {
			case i == 0:
				newest = gen
			case gen == last:
			case gen == newest-1 && boundary == 0:
				boundary = i
			default:
				return 0, 0, fmt.Errorf("block %d is of generation %d, the one before of %d, the first of %d", i, gen, last, newest)
			}
			last = gen
			i++
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			if i != blocks || n%blockSize != 0 {
				return 0, 0, fmt.Errorf("%d blocks, want %d", i, blocks)
			}
			return newest, boundary, nil
		}
		if err != nil {
			return 0, 0, err
		}
	}
}
