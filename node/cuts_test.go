package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/clsync/clsync/node/config"
	"github.com/clsync/clsync/node/replica"
	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/transfer/session"
)

// No page of a cut that was given up goes out behind the head that begins anew.
func TestStoppedCutSendsNothing(t *testing.T) {
	var s cutStream
	pages := 0
	page := func() error { pages++; return nil }
	if err := s.send(page); err != nil || pages != 1 {
		t.Fatalf("%d pages, %v", pages, err)
	}
	s.stop()
	if err := s.send(page); !errors.Is(err, session.ErrGone) || pages != 1 {
		t.Errorf("%d pages, %v", pages, err)
	}
}

// What a peer still pushes of an earlier run of the tree was asked of it.
func TestBatchesOfAnEarlierRun(t *testing.T) {
	var f fetches
	f.begin(7)
	peer := signature.NodeID{1}
	if !f.asked(peer, 7) || f.asked(peer, 8) || f.get(peer, 7) != nil {
		t.Error("batch 7 was asked for, 8 was not, and neither is under way")
	}
	f.add(8, &receiving{from: peer})
	if !f.asked(peer, 8) || f.get(peer, 8) == nil || f.asked(signature.NodeID{2}, 8) || f.latest() != 8 {
		t.Error("batch 8 is under way, from one peer")
	}
}

// A big file is read by the goroutine that holds up no others, also where its mark
// is as it was but proves nothing yet. Its own time says nothing about when it was written.
func TestBigLooks(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "big")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Truncate(name, bigLook), os.Chtimes(name, time.Time{}, time.Now().Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	r, err := signature.OpenRoot(dir, signature.LookConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	mark, ok := stat(r, "big")
	if !ok {
		t.Fatal("not there")
	}
	young, old := mark, mark
	young.Looked, old.Looked = mark.CTime, mark.CTime+int64(time.Second)
	look := func(m signature.StatMark, delay time.Duration) (replica.Seen, bool) {
		tr := &tree{}
		tr.cfg.Store(&config.Tree{BigSize: bigLook, BigDelay: config.Duration(delay)})
		shown := signature.Signature{Type: signature.File, Size: bigLook}
		return tr.look(context.Background(), r, replica.LookTask{Path: "big", Shown: shown, Mark: m}, false)
	}
	if s, big := look(old, 0); big || !s.Look.Unchanged {
		t.Errorf("an old mark: %+v", s)
	}
	for _, m := range []signature.StatMark{young, {}} {
		if s, big := look(m, 0); !big {
			t.Errorf("mark %+v: %+v", m, s)
		}
	}
	if s, _ := look(signature.StatMark{}, time.Minute); s.Later <= 0 || s.Later > time.Minute {
		t.Errorf("written just now, looked at in %s", s.Later)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		if _, big := look(signature.StatMark{}, 50*time.Millisecond); big {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a file with a time to come is never looked at")
		}
	}
}
