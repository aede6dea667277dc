package trust

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clsync/clsync/signature"
)

func TestNodesStory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.json")
	n, err := OpenNodes(path)
	if err != nil {
		t.Fatal(err)
	}
	one, two := signature.NodeID{1}, signature.NodeID{2}
	t0 := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	is := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) || (want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	reopen := func() {
		t.Helper()
		again, err := OpenNodes(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(n.List(), again.List()); diff != "" {
			t.Errorf("what the file says differs: %s", diff)
		}
		n = again
	}

	is("new", n.Admit(t0, "alpha", one), nil)
	reopen()
	is("again", n.Admit(t0.Add(time.Minute), "alpha", one), nil)
	is("second key", n.Admit(t0, "alpha", two), ErrOtherKey)
	is("second name", n.Admit(t0, "beta", one), ErrOtherName)
	is("bad name", n.Admit(t0, "a/b", two), ErrName)
	if len(n.List()) != 1 {
		t.Errorf("a refused node was noted: %v", n.List())
	}

	id, err := n.Remove(t0, "alpha")
	is("remove", err, nil)
	if id != one {
		t.Errorf("removed %s", id)
	}
	_, err = n.Remove(t0, "alpha")
	is("remove again", err, ErrUnknownNode)
	is("removed", n.Admit(t0, "alpha", one), ErrRemoved)
	is("removed under another name", n.Admit(t0, "gamma", one), ErrRemoved)
	is("name is free", n.Admit(t0, "alpha", two), nil)
	reopen()
	is("still removed", n.Check("alpha", one), ErrRemoved)

	is("forget", n.Forget(t0, one), nil)
	is("forget again", n.Forget(t0, one), ErrUnknownNode)
	is("name is taken", n.Admit(t0, "alpha", one), ErrOtherKey)
	is("back", n.Admit(t0, "alpha1", one), nil)
	reopen()

	later := t0.Add(2 * seenEvery)
	is("later", n.Admit(later, "alpha", two), nil)
	reopen()
	if got := n.List()[0].LastSeen; !got.Equal(later) {
		t.Errorf("last seen %v, want %v", got, later)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestNodesDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.json")
	for _, text := range []string{
		"", "{", `{"version":2}`, `{"version":1,"nodes":[{"name":"a","id":"00"}]}`,
		`{"version":1,"nodes":[{"name":"a","id":"01000000000000000000000000000000"},{"name":"a","id":"02000000000000000000000000000000"}]}`,
		`{"version":1,"nodes":[{"name":"a","id":"01000000000000000000000000000000"},{"name":"b","id":"01000000000000000000000000000000"}]}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenNodes(path); err == nil {
			t.Errorf("opened %q", text)
		}
	}
}

// A node that cannot be noted is not admitted: after a restart its name would be free.
func TestNodesUnwritable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	n, err := OpenNodes(filepath.Join(dir, "nodes.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Admit(time.Now(), "alpha", signature.NodeID{1}); err == nil {
		t.Fatal("admitted without a place to note it")
	}
	if len(n.List()) != 0 {
		t.Errorf("noted in memory only: %v", n.List())
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := n.Admit(time.Now(), "alpha", signature.NodeID{2}); err != nil {
		t.Errorf("the name was kept by the failure: %v", err)
	}
}

func TestNodesBound(t *testing.T) {
	n, err := OpenNodes(filepath.Join(t.TempDir(), "nodes.json"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range MaxNodes {
		n.put(&Node{Name: fmt.Sprint("n", i), ID: signature.NodeID{byte(i), byte(i >> 8)}})
	}
	if err := n.Admit(time.Now(), "onemore", signature.NodeID{15: 1}); !errors.Is(err, ErrNodesFull) {
		t.Errorf("node %d: %v", MaxNodes+1, err)
	}
}

// Of many keys that claim one name at once, one gets it.
func TestNodesRace(t *testing.T) {
	n, err := OpenNodes(filepath.Join(t.TempDir(), "nodes.json"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		wg.Go(func() { errs[i] = n.Admit(time.Now(), "alpha", signature.NodeID{byte(i + 1)}) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, ErrOtherKey) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d keys got one name", won)
	}
}
