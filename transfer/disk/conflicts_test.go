package disk

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

func TestKeepDisplaced(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		note := Note{Version: "abc/0001:7", Stamp: 42, Why: "lost to abc", Node: "n1", When: testTime}
		r := b.one(Done, Apply{Path: "f", Target: file("one"), Content: b.stage("x", "one")})
		first := r.Look.Sig
		r = b.one(Done, Apply{Path: "f", Target: file("two"), Expect: r.Look.Sig, Mark: r.Look.Mark, Content: b.stage("x", "two"), Keep: "c1", Note: note})
		second := r.Look.Sig
		kept1 := r.Kept
		r = b.one(Done, Apply{Path: "f", Target: gone, Expect: r.Look.Sig, Mark: r.Look.Mark, Keep: "c1", Note: note})
		cs := b.kept()
		if len(cs) != 2 {
			t.Fatalf("kept %+v", cs)
		}
		for _, c := range cs {
			want := second
			if c.ID == kept1 {
				want = first
			}
			if c.Case != "c1" || c.Path != "f" || c.Sig != want || c.Note != note {
				t.Errorf("kept %+v, want %+v", c, want)
			}
			pin, err := os.OpenFile(c.File, unix.O_PATH|unix.O_NOFOLLOW, 0)
			must(t, err)
			got, _, err := b.root.Read(context.Background(), pin)
			pin.Close()
			if err != nil || got != want {
				t.Errorf("the object is %+v, %v; want %+v", got, err, want)
			}
		}
		f, err := b.tree.OpenConflict(kept1)
		must(t, err)
		text, err := io.ReadAll(f)
		f.Close()
		if err != nil || string(text) != "one" {
			t.Errorf("opened %q, %v", text, err)
		}
		must(t, b.tree.RemoveConflict(kept1))
		for _, id := range []string{kept1, "c1/none", "no/no", "..", "c1/..", "c1", "", "c1/a/b"} {
			if _, err := b.tree.Conflict(id); err == nil {
				t.Errorf("there is a conflict %q", id)
			}
		}
		// A file with another live name is kept as a copy.
		b.write("a", "linked")
		must(t, os.Link(b.at("a"), b.at("b")))
		l := b.look("a")
		r = b.one(Done, Apply{Path: "a", Target: gone, Expect: l.Sig, Mark: l.Mark, Keep: "c2", Note: note})
		b.write("b", "edited")
		if got := b.read(".clsync/conflicts/" + r.Kept + "/content"); got != "linked" {
			t.Errorf("kept %s", got)
		}
		b.clean()
	})
}

func TestKeepLiveAndCopy(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		ctx := context.Background()
		must(t, os.MkdirAll(b.at("d/sub"), 0o755))
		b.write("d/sub/f", "deep")
		c, err := b.tree.KeepLive(ctx, "d", "split", Note{Why: "lost"})
		must(t, err)
		if got, err := os.ReadFile(filepath.Join(c.File, "sub/f")); err != nil || string(got) != "deep" || b.look("d").Sig.Exists() {
			t.Errorf("kept %q, %v", got, err)
		}
		if c.Note.Node != "test" || c.Note.When == 0 {
			t.Errorf("note %+v", c.Note)
		}
		b.write("live", "one")
		for _, from := range []Content{b.stage("x", "one"), {CopyFrom: "live"}} {
			c, err := b.tree.KeepCopy(ctx, "p/q", file("one"), from, "case", Note{})
			must(t, err)
			if c.Sig != file("one") || b.read("live") != "one" {
				t.Errorf("kept %+v", c)
			}
		}
		if _, err := b.tree.KeepCopy(ctx, "p", file("two"), Content{CopyFrom: "live"}, "case", Note{}); !errors.Is(err, ErrSource) {
			t.Errorf("kept another content: %v", err)
		}
		if _, err := b.tree.KeepLive(ctx, "none", "case", Note{}); err == nil {
			t.Error("kept nothing")
		}
		for _, kase := range []string{"", "..", "a/b", "\n"} {
			if _, err := b.tree.KeepCopy(ctx, "p", file(""), Content{}, kase, Note{}); !errors.Is(err, ErrName) {
				t.Errorf("case %q: %v", kase, err)
			}
		}
		if n := len(b.kept()); n != 3 {
			t.Errorf("%d kept, want 3", n)
		}
	})
}

// crash runs an apply that ends at a failpoint as if the power had gone: nothing
// of what the process would do after it is done.
func (b *bench) crash(step string, a Apply) {
	b.t.Helper()
	type dead struct{}
	failpoint = func(s string, p signature.Path) {
		if s == step {
			panic(dead{})
		}
	}
	defer func() {
		failpoint = func(string, signature.Path) {}
		if _, ok := recover().(dead); !ok {
			b.t.Fatalf("did not come to %q", step)
		}
	}()
	b.apply(a)
}

func TestCrash(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		rest(t, 0)
		b.write("m", "moved")
		m := b.look("m")
		for _, tt := range []struct {
			name, step string
			live       string
			kept       string
			content    Content
			edit       bool
			keep       string
		}{
			{name: "before the exchange", step: "exchange", live: "held"},
			{name: "after it", step: "exchanged", live: "new"},
			{name: "after it, to be kept", step: "exchanged", live: "new", kept: "held", keep: "c"},
			{name: "after it, an unseen edit", step: "exchanged", live: "new", kept: "mine", edit: true},
			{name: "with a moved content", step: "exchange", live: "held", kept: "moved", content: Content{MoveFrom: "m", Sig: m.Sig, Mark: m.Mark}},
		} {
			b.write("f", "held")
			l := b.look("f")
			a := Apply{Path: "f", Target: file("new"), Expect: l.Sig, Mark: l.Mark, Content: tt.content, Keep: tt.keep}
			if tt.content.none() {
				a.Content = b.stage("x", "new")
			} else {
				a.Target = file("moved")
			}
			old := failpoint
			if tt.edit { // saved between the look and the exchange
				must(t, os.Link(b.at("f"), b.at("keepalive")))
				b.write("g", "mine")
				must(t, os.Rename(b.at("g"), b.at("f")))
				l2 := b.look("f")
				// The manifest says what was expected; the displaced file is not that.
				a.Mark = l2.Mark
				a.Mark.Looked = a.Mark.CTime + int64(time.Hour)
			}
			b.crash(tt.step, a)
			failpoint = old
			if got := b.read("f"); got != tt.live {
				t.Errorf("%s: live %s, want %s", tt.name, got, tt.live)
			}
			s, err := b.tree.SweepGrace(context.Background())
			must(t, err)
			switch {
			case s.Resting != 0 || len(s.Kept) > 1 || (len(s.Kept) == 1) != (tt.kept != ""):
				t.Errorf("%s: swept %+v", tt.name, s)
			case tt.kept != "":
				if got := b.read(".clsync/conflicts/" + s.Kept[0].ID + "/content"); got != tt.kept || s.Kept[0].Path != "f" {
					t.Errorf("%s: kept %s as %+v, want %s", tt.name, got, s.Kept[0], tt.kept)
				}
			}
			b.clean()
		}
		// Nothing explains what rests here: it is kept.
		run, err := makeFolder(b.tree.dirs[grace], "lost")
		must(t, err)
		defer run.Close()
		b.write(".clsync/grace/lost/manifest", "\x93half")
		b.write(".clsync/grace/lost/0", "whose?")
		b.write(".clsync/grace/lost/1.part", "half a co")
		s, err := b.tree.SweepGrace(context.Background())
		must(t, err)
		if len(s.Kept) != 1 || s.Kept[0].Path != "" || b.read(".clsync/conflicts/"+s.Kept[0].ID+"/content") != "whose?" {
			t.Errorf("swept %+v", s)
		}
		b.clean()
	})
}

// TestDescriptionLost: the object is worth more than its description.
func TestDescriptionLost(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		c, err := b.tree.KeepCopy(context.Background(), "p", file(""), Content{}, "case", Note{})
		must(t, err)
		for _, broken := range []string{"", "{", `{"Signature":"AAAA"}`, `{"Signature":"!"}`} {
			must(t, os.WriteFile(filepath.Join(filepath.Dir(c.File), "meta.json"), []byte(broken), 0o600))
			if cs := b.kept(); len(cs) != 1 || cs[0].ID != c.ID || cs[0].Path != "" {
				t.Errorf("with %q: %+v", broken, cs)
			}
		}
	})
}
