package index

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/clsync/clsync/signature"
)

// sample is a record as a scan of a plain tree makes it.
func sample(i int) signature.Record {
	n := binary.BigEndian.AppendUint64(nil, uint64(i))
	a := signature.Actor{Node: signature.NodeID{9, 8, 7}, Incarnation: 1 << 60}
	s := signature.Signature{
		Type:  signature.File,
		Facts: signature.Facts{Mode: 0o644, UID: 1000, GID: 1000, MTime: 1_700_000_000_000_000_000 + int64(i)},
		Size:  int64(i),
		Hash:  signature.Hash{Algorithm: signature.SHA256, Sum: sha256.Sum256(n)},
	}
	v := signature.Version{Dot: signature.Dot{Actor: a, Seq: uint64(i) + 1}, Sig: s, Stamp: s.MTime}
	return signature.Record{
		Path:   samplePath(i),
		Listed: []signature.Version{v},
		Held:   signature.Held{Version: v, Form: signature.Plain},
		Shown:  s,
		Mark:   signature.StatMark{CTime: s.MTime, MTime: s.MTime, Ino: uint64(i) + 12, Dev: 64769, Size: s.Size, Mode: 0o100644, Links: 1, Looked: s.MTime + 1e9},
	}
}

func samplePath(i int) signature.Path {
	return signature.Path(fmt.Sprintf("var/lib/containers/web%02d/rootfs/usr/share/%04d/file-%07d.html", i/50_000, i/100, i))
}

const batch = 16000

func fill(b testing.TB, s *Store, n int) {
	for i := range n {
		s.Put(sample(i))
		if i%batch == batch-1 || i == n-1 {
			if err := s.Commit(Meta{TreeID: "bench", Reserved: uint64(i)}); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func benchmarkLoad(b *testing.B, n int) {
	for b.Loop() {
		dir := b.TempDir()
		s := mustOpen(b, dir, here)
		fill(b, s, n)
		var mem runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&mem)
		b.ReportMetric(float64(mem.HeapAlloc)/1e6, "heap-MB")
		st, err := s.file.Stat()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(st.Size())/1e6, "file-MB")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		s = mustOpen(b, dir, here)
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "open-ms")
		start = time.Now()
		count := 0
		s.Ascend("", func(signature.Record) bool { count++; return true })
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "scan-ms")
		if count != n || s.Len() != n || s.Err() != nil {
			b.Fatalf("%d of %d, %v", count, n, s.Err())
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoad100000(b *testing.B)  { benchmarkLoad(b, 100_000) }
func BenchmarkLoad1000000(b *testing.B) { benchmarkLoad(b, 1_000_000) }

const some = 200_000

func benchStore(b *testing.B) *Store {
	s := mustOpen(b, b.TempDir(), here)
	fill(b, s, some)
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

func BenchmarkGet(b *testing.B) {
	s := benchStore(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := s.Get(samplePath(rand.IntN(some))); !ok {
			b.Fatal(s.Err())
		}
	}
}

func BenchmarkGetAgain(b *testing.B) {
	s := benchStore(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := s.Get(samplePath(rand.IntN(100))); !ok {
			b.Fatal(s.Err())
		}
	}
}

// BenchmarkStep is one small step: 20 records read, changed and made durable.
func BenchmarkStep(b *testing.B) {
	s := benchStore(b)
	seq := uint64(some)
	b.ReportAllocs()
	for b.Loop() {
		for range 20 {
			r, ok := s.Get(samplePath(rand.IntN(some)))
			if !ok {
				b.Fatal(s.Err())
			}
			seq++
			r.Listed[0].Dot.Seq = seq
			r.Held.Version = r.Listed[0]
			s.Put(r)
		}
		if err := s.Commit(Meta{TreeID: "bench", Reserved: seq}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSinceLast20(b *testing.B) {
	s := benchStore(b)
	k := signature.Knowledge{sample(0).Listed[0].Dot.Actor: some - 20}
	for b.Loop() {
		n := 0
		s.Since(k, func(signature.Record) bool { n++; return true })
		if n != 20 {
			b.Fatal(n, s.Err())
		}
	}
}

func BenchmarkChildren(b *testing.B) {
	s := benchStore(b)
	for b.Loop() {
		n := 0
		s.Children("var/lib/containers/web00/rootfs/usr/share/0017", func(signature.Record) bool { n++; return true })
		if n != 100 {
			b.Fatal(n, s.Err())
		}
	}
}
