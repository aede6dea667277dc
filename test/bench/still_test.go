package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkAtRest: what daemons cost that have nothing to do, how long they take
// until they have nothing to do, and what one change takes then.
func BenchmarkAtRest(b *testing.B) {
	s := sized()
	for _, at := range []place{onTmpfs, onDisk} {
		b.Run(at.name, func(b *testing.B) {
			var table report
			for range b.N {
				for _, files := range []int{s.files, s.many} {
					atRest(b, at.make(b), files, &table)
				}
			}
			table.print("at rest, " + at.name)
		})
	}
}

func atRest(b *testing.B, on string, files int, table *report) {
	// Gossip as it comes: the fast one is for tests.
	d := prepareDaemons(b, on, options{})
	x, y := d.trees()
	fill(b, x, files)
	must(b, run(exec.Command("rsync", "-a", x+"/", y+"/")))
	row := func(what, unit string, value float64) {
		table.add(fmt.Sprintf("%d files: %s", files, what), unit, d.name(), value)
	}
	for _, when := range []string{"first start", "next start"} {
		begin := time.Now()
		d.start()
		row(when+" to at rest", "s", seconds(time.Since(begin)))
		if when == "first start" {
			if sent := contentBytes(b, d); sent > 0 {
				b.Errorf("%d bytes of content travelled between trees that were the same", sent)
			}
			all, own := memory(b, d.nodes[0].cmd.Process.Pid)
			row("memory after the first start", "MiB", all)
			row("of that anonymous", "MiB", own)
			d.stop()
		}
	}
	all, own := memory(b, d.nodes[0].cmd.Process.Pid)
	row("memory after the next start", "MiB", all)
	row("of that anonymous, then", "MiB", own)

	var took []time.Duration
	for i := range sized().others {
		time.Sleep(50 * time.Millisecond)
		name := fmt.Sprintf("d%d/new-%d", i%(files/100), i)
		begin := time.Now()
		must(b, os.WriteFile(filepath.Join(x, name), []byte(name), 0o644))
		took = append(took, until(b, begin, "create", func() bool {
			got, err := os.ReadFile(filepath.Join(y, name))
			return err == nil && string(got) == name
		}))
	}
	table.took(fmt.Sprintf("%d files: create", files), d.name(), took)
	d.rest()

	before := [2]time.Duration{}
	for i, n := range d.nodes {
		before[i] = cpu(b, n.cmd.Process.Pid)
	}
	time.Sleep(sized().idle)
	for i, n := range d.nodes {
		share := (cpu(b, n.cmd.Process.Pid) - before[i]).Seconds() / sized().idle.Seconds()
		what := fmt.Sprintf("idle CPU of %c", 'a'+i)
		row(what, "% of a core", 100*share)
		table.target(fmt.Sprintf("%d files: %s", files, what), "under 0.1")
	}
	equal(b, d)
	d.close()
}
