package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkManyFiles: a batch of small files written at once, and then the folder
// that they are in renamed.
func BenchmarkManyFiles(b *testing.B) {
	for _, at := range []place{onTmpfs, onDisk} {
		b.Run(at.name, func(b *testing.B) {
			var table report
			for range b.N {
				on := at.make(b)
				for _, contender := range contenders(options{gossip: "fast = true"}) {
					manyFiles(b, contender(b, on), &table)
				}
				bareRun(b, on, &table)
			}
			table.target("files, to one rsync of all", "at most 1.5x")
			table.target("rename: content bytes sent", "0")
			table.print("many files of 1 KiB at once, then their folder renamed, " + at.name)
		})
	}
}

func manyFiles(b *testing.B, p pair, table *report) {
	s := sized()
	x, y := p.trees()
	must(b, os.Mkdir(filepath.Join(x, "many"), 0o755))
	until(b, time.Now(), "folder", func() bool { return names(y) == 1 })
	p.rest()

	before := used(b, p)
	begin := time.Now()
	count := 1 + fill(b, filepath.Join(x, "many"), s.files)
	took := same(b, p, begin, count)
	table.add("files", "s", p.name(), seconds(took))
	table.add("files, to one rsync of all", "s", p.name(), seconds(took))
	p.rest()
	if d, ok := p.(*daemons); ok {
		table.add("files: CPU of both daemons", "s", p.name(), seconds(used(b, p)-before))
		table.add("files: rsync runs", "", p.name(), float64(d.counters().RsyncRuns))
	}

	sent := contentBytes(b, p)
	begin = time.Now()
	must(b, os.Rename(filepath.Join(x, "many"), filepath.Join(x, "moved")))
	until(b, begin, "renamed folder", func() bool { return gone(filepath.Join(y, "many")) })
	table.add("folder renamed", "s", p.name(), seconds(same(b, p, begin, count)))
	p.rest()
	if _, ok := p.(*daemons); ok {
		rose := contentBytes(b, p) - sent
		table.add("rename: content bytes sent", "B", p.name(), float64(rose))
		if rose > 0 {
			b.Errorf("a renamed folder made %d bytes of content travel", rose)
		}
	}
	p.close()
}

// bareRun is the least that anything built on rsync can take: the files written,
// then one run over all of them.
func bareRun(b *testing.B, on string, table *report) {
	dir := filepath.Join(on, "bare")
	x, y := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	must(b, os.MkdirAll(x, 0o755))
	begin := time.Now()
	fill(b, x, sized().files)
	wrote := time.Since(begin)
	must(b, run(exec.Command("rsync", "-aHAX", x+"/", y+"/")))
	table.add("files, to one rsync of all", "s", "rsync", seconds(time.Since(begin)))
	table.add("writing them alone", "s", "rsync", seconds(wrote))
}

// contentBytes is what the first node says it has sent.
func contentBytes(b *testing.B, p pair) int64 {
	b.Helper()
	if d, ok := p.(*daemons); ok {
		return d.counters().BytesSent
	}
	return 0
}

func used(b *testing.B, p pair) (sum time.Duration) {
	b.Helper()
	if d, ok := p.(*daemons); ok {
		for _, n := range d.nodes {
			sum += cpu(b, n.cmd.Process.Pid)
		}
	}
	return sum
}
