package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/clsync/clsync/node/replica"
	"github.com/clsync/clsync/signature"
)

func TestSnapshotDue(t *testing.T) {
	var s snapshots
	due := func(want bool, moving time.Duration) {
		t.Helper()
		if got := s.due("p", moving); got != want {
			t.Errorf("after %v: due is %v", moving, got)
		}
	}
	due(false, replica.Restless-1)
	due(true, replica.Restless)

	// It gave none: less and less often, but never less than every maxPause.
	s.failed("p", replica.Restless)
	due(false, 2*replica.Restless-1)
	due(true, 2*replica.Restless)
	s.failed("p", 10*maxPause)
	due(false, 11*maxPause-1)
	due(true, 11*maxPause)
	due(true, replica.Restless) // it rested in between

	// The dearer the last one, the later the next.
	s.add("p", snapshot{id: "s1", took: time.Minute})
	due(false, pauseFor*time.Minute-1)
	due(true, pauseFor*time.Minute)

	// None while the last one is on its way.
	s.add("p", snapshot{id: "s2"})
	first, second := s.use("s2"), s.use("s2")
	due(false, maxPause-1)
	due(true, maxPause)
	first()
	due(false, replica.Restless)
	second()
	due(true, replica.Restless)
	if len(s.users) != 0 {
		t.Errorf("users %v", s.users)
	}
}

func TestSnapshotsAreFew(t *testing.T) {
	var s snapshots
	hash := func(i int) signature.Hash {
		return signature.Hash{Algorithm: signature.SHA256, Sum: [32]byte{byte(i), 1}}
	}
	add := func(p string, i int) string {
		return s.add(signature.Path(p), snapshot{id: s.draw(), hash: hash(i)})
	}
	first := s.draw()
	s.add("p0", snapshot{id: first, hash: hash(0)})
	for i := 1; i < maxSnapshots; i++ {
		if old := add(fmt.Sprintf("p%d", i), i); old != "" {
			t.Fatalf("%s goes for the one of p%d", old, i)
		}
	}
	renewed, _ := s.find(hash(1))
	if old := add("p1", 100); old != renewed {
		t.Errorf("%s goes for the next one of its path, want %s", old, renewed)
	}
	if old := add("more", 101); old != first {
		t.Errorf("%s goes when all are taken, want the oldest, %s", old, first)
	}
	if id, ok := s.find(hash(0)); ok {
		t.Errorf("%s is still found", id)
	}
	if id, _ := s.find(hash(100)); id == "" || s.forget("p1") != id || s.forget("p1") != "" {
		t.Errorf("forgetting p1, with %q", id)
	}
	if n := len(s.paths()); n != maxSnapshots-1 {
		t.Errorf("%d left", n)
	}
}
