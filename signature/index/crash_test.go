package index

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

const childEnv = "CLSYNC_TEST_INDEX_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := writeForEver(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

const perRound = 40

// round is what the writer commits as its n-th step: every record changes.
func round(n uint64) []signature.Record {
	rs := make([]signature.Record, perRound)
	for i := range rs {
		rs[i] = sample(i)
		rs[i].Listed[0].Dot.Seq = n*perRound + uint64(i)
		rs[i].Listed[0].Stamp = int64(n)
		rs[i].Held.Version = rs[i].Listed[0]
	}
	return rs
}

func writeForEver(dir string) error {
	s, err := Open(dir, here)
	if err != nil {
		return err
	}
	for n := s.Meta().Reserved + 1; ; n++ {
		for _, r := range round(n) {
			s.Put(r)
		}
		s.PutLedger([]LedgerEntry{{Path: samplePath(int(n % 5)), Version: sample(1).Held.Version}})
		if err := s.Commit(Meta{TreeID: "crash", Actor: signature.Actor{Incarnation: 1}, Reserved: n}); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// A writer is killed at any moment, again and again: what it had acknowledged is
// there, what it had not is there whole or not at all.
func TestKilledWhileCommitting(t *testing.T) {
	dir := t.TempDir()
	last := uint64(0)
	for run := range 8 {
		last = killed(t, dir, last, time.Duration(5+7*run)*time.Millisecond)
		s := mustOpen(t, dir, here)
		f, got := s.Found(), s.Meta().Reserved
		if f.State != Continued || !f.Continuous || f.Clean {
			t.Fatalf("after a kill: %+v", f)
		}
		if got != last && got != last+1 {
			t.Fatalf("acknowledged %d, found %d", last, got)
		}
		last = got
		for _, want := range round(got) {
			if r, ok := s.Get(want.Path); !ok || r.Listed[0] != want.Listed[0] {
				t.Fatalf("round %d: %s is of round %d", got, want.Path, r.Listed[0].Stamp)
			}
		}
		n := 0
		s.Since(nil, func(signature.Record) bool { n++; return true })
		if n != perRound || s.Len() != perRound || s.Err() != nil {
			t.Fatalf("%d by dot, %d live, err %v", n, s.Len(), s.Err())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d commits", last)
}

// killed runs a writer until it has acknowledged something and a little longer, and
// returns the last round that it acknowledged.
func killed(t *testing.T, dir string, last uint64, after time.Duration) uint64 {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var kill *time.Timer
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if last, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
			t.Fatal(err)
		}
		if kill == nil {
			kill = time.AfterFunc(after, func() { cmd.Process.Kill() })
		}
	}
	if kill == nil {
		t.Fatal("the writer wrote nothing")
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(interface{ Signaled() bool }).Signaled() == false {
		t.Fatalf("the writer ended by itself: %v", err)
	}
	return last
}

func tmpfs(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("index", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// A full disk is an error and no more: nothing of the step is on disk, all of it
// still answers, and when there is space again it is committed.
func TestDiskFull(t *testing.T) {
	dir := tmpfs(t, "3m")
	s := mustOpen(t, dir, here)
	put := func(from, n int) {
		for i := range n {
			s.Put(sample(from + i))
		}
	}
	put(0, 100)
	if err := s.Commit(Meta{TreeID: "full", Reserved: 1}); err != nil {
		t.Fatal(err)
	}
	before := dump(s, nil)
	ballast := filepath.Join(dir, "ballast")
	hole := fillDisk(t, ballast)
	put(50, 2000)
	for range 3 {
		err := s.Commit(Meta{TreeID: "full", Reserved: 2})
		if !errors.Is(err, unix.ENOSPC) || s.Err() != nil {
			t.Fatalf("commit to a full disk of %d bytes: %v, kept %v", hole, err, s.Err())
		}
		if s.Len() != 2050 || s.Meta().Reserved != 1 {
			t.Fatalf("%d live, reserved %d", s.Len(), s.Meta().Reserved)
		}
	}
	after := dump(s, nil)

	// Forgotten, it is as before; and so it is for who opens the file now.
	s.Discard()
	if got := dump(s, nil); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Fatal("a failed commit left something behind")
	}
	if err := s.Close(); err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, here)
	if f := s.Found(); f.State != Continued || fmt.Sprint(dump(s, nil)) != fmt.Sprint(before) {
		t.Fatalf("found %+v", f)
	}
	put(50, 2000)
	if err := s.Commit(Meta{TreeID: "full", Reserved: 2}); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(Meta{TreeID: "full", Reserved: 2}); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, here)
	defer s.Close()
	after[len(after)-1] = fmt.Sprintf("live %d meta %+v err %v", s.Len(), s.Meta(), s.Err())
	if f := s.Found(); f.State != Continued || fmt.Sprint(dump(s, nil)) != fmt.Sprint(after) || s.Meta().Reserved != 2 {
		t.Fatalf("found %+v", f)
	}
}

func fillDisk(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for n := 0; ; {
		w, err := f.Write(make([]byte, 4096))
		if n += w; errors.Is(err, unix.ENOSPC) {
			return n
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
