package replica

import (
	"errors"
	"testing"
	"time"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/index"
)

var other = signature.Actor{Node: signature.NodeID{2}, Incarnation: 1}

// cutOf is a cut of another node's versions: those of the map, in order of their seq.
func cutOf(known uint64, listed map[signature.Path]signature.Version) CutIn {
	ev := CutIn{From: other.Node, Cut: Cut{Knowledge: signature.Knowledge{other: known}}}
	for p, v := range listed {
		ev.Cut.Listings = append(ev.Cut.Listings, signature.Listing{Path: p, Versions: []signature.Version{v}})
	}
	return ev
}

func othersVersion(seq uint64, s signature.Signature) signature.Version {
	return signature.Version{Dot: signature.Dot{Actor: other, Seq: seq}, Stamp: int64(seq), Sig: s}
}

// carryOut answers an apply as a disk does that takes everything, and returns what was asked for.
func carryOut(c *Core, now time.Time, fx Effects) map[signature.Path]bool {
	did := map[signature.Path]bool{}
	for len(fx.Apply) > 0 {
		var ev Applied
		for i, task := range fx.Apply {
			did[task.Path] = true
			m := signature.StatMark{Ino: uint64(100 + i), CTime: 1, Looked: int64(time.Hour), Links: 1}
			ev.Results = append(ev.Results, Result{Task: task, Outcome: Done, Look: signature.Look{Path: task.Path, Sig: task.Target, Mark: m}})
		}
		fx = c.Step(now, ev)
	}
	return did
}

// A folder that was removed on a receive-only node comes back with what others change
// beneath it, also where nothing about the folder itself has changed.
func TestReceiveOnlyFolderComesBack(t *testing.T) {
	now := time.Unix(1e9, 0)
	c := New(Config{Self: signature.Actor{Node: signature.NodeID{1}, Incarnation: 1}, ReceiveOnly: true}, index.NewMemory(), Start{})
	folder := signature.Signature{Type: signature.Folder, Facts: signature.Facts{Mode: 0o755}}
	link := signature.Signature{Type: signature.Symlink, Target: "one"}
	c.Step(now, PeerUp{ID: other.Node})
	fx := c.Step(now, cutOf(3, map[signature.Path]signature.Version{"d": othersVersion(1, folder), "d/e": othersVersion(2, folder), "d/e/l": othersVersion(3, link)}))
	if did := carryOut(c, now, fx); len(did) != 3 {
		t.Fatalf("applied %v", did)
	}
	fx = c.Step(now, Hinted{Paths: []signature.Path{"d"}})
	for range 10 { // until the look that counts
		var ev Looked
		for _, task := range fx.Looks {
			ev.Looks = append(ev.Looks, Seen{Task: task, Look: signature.Look{Path: task.Path, Sig: signature.Signature{Type: signature.Absent}}})
		}
		if fx = c.Step(now, ev); len(fx.Looks) == 0 && !fx.Wake.IsZero() {
			now = fx.Wake
			fx = c.Step(now, Tick{})
		}
	}
	if got := c.Local(10); len(got) != 3 {
		t.Fatalf("changed here: %v", got)
	}
	link.Target = "two"
	did := carryOut(c, now, c.Step(now, cutOf(4, map[signature.Path]signature.Version{"d/e/l": othersVersion(4, link)})))
	if !did["d"] || !did["d/e"] || !did["d/e/l"] || c.State().Pending != 0 {
		t.Errorf("applied %v, %d pending", did, c.State().Pending)
	}
}

// A path that is ignored from now on is blocked no longer, whether it could not land
// or not be read.
func TestIgnoredIsNotStuck(t *testing.T) {
	now := time.Unix(1e9, 0)
	ignored := false
	c := New(Config{Self: signature.Actor{Node: signature.NodeID{1}, Incarnation: 1},
		Ignored: func(signature.Path, bool) bool { return ignored }}, index.NewMemory(), Start{})
	c.Step(now, PeerUp{ID: other.Node})
	fx := c.Step(now, cutOf(1, map[signature.Path]signature.Version{"l": othersVersion(1, signature.Signature{Type: signature.Symlink, Target: "x"})}))
	c.Step(now, Applied{Results: []Result{{Task: fx.Apply[0], Outcome: Blocked, Err: errors.New("immutable")}}})
	fx = c.Step(now, Hinted{Paths: []signature.Path{"secret"}})
	var ev Looked
	for _, task := range fx.Looks {
		ev.Looks = append(ev.Looks, Seen{Task: task, Look: signature.Look{Path: task.Path, Err: errors.New("denied")}})
	}
	c.Step(now, ev)
	if got := c.Stuck(10); len(got) != 2 {
		t.Fatalf("stuck: %+v", got)
	}
	ignored = true
	c.Step(now, Rules{})
	c.Step(now.Add(time.Minute), Tick{})
	if got := c.Stuck(10); len(got) != 0 {
		t.Errorf("stuck: %+v", got)
	}
}

// A file whose ctime lies ahead, since the clock was put back, is not read over and over.
func TestCTimeAhead(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, tt := range []struct {
		ctime time.Duration
		again bool
	}{{-time.Second, false}, {-time.Millisecond, true}, {time.Second, true}, {time.Hour, false}} {
		c := New(Config{Self: signature.Actor{Node: signature.NodeID{1}, Incarnation: 1}}, index.NewMemory(), Start{})
		at, looks := now, 0
		fx := c.Step(at, Hinted{Paths: []signature.Path{"l"}})
		for range 20 {
			var ev Looked
			for _, task := range fx.Looks {
				looks++
				m := signature.StatMark{CTime: at.Add(tt.ctime).UnixNano(), Looked: at.UnixNano(), Ino: 7, Links: 1}
				ev.Looks = append(ev.Looks, Seen{Task: task, Look: signature.Look{Path: task.Path, Sig: signature.Signature{Type: signature.Symlink, Target: "x"}, Mark: m}})
			}
			if len(ev.Looks) > 0 {
				c.Step(at, ev)
			}
			at = at.Add(100 * time.Millisecond)
			fx = c.Step(at, Tick{})
		}
		if looks > 1 != tt.again {
			t.Errorf("ctime %s from the look: %d looks", tt.ctime, looks)
		}
	}
}
