package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/clsync/clsync/signature"
)

func TestCreateReplaceDelete(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		r := b.one(Done, Apply{Path: "f", Target: file("one"), Content: b.stage("x", "one")})
		ino := r.Look.Mark.Ino
		r = b.one(Done, Apply{Path: "f", Target: file("two"), Expect: r.Look.Sig, Mark: r.Look.Mark, Content: b.stage("x", "two")})
		if r.Look.Mark.Ino == ino {
			t.Error("a replaced file kept its inode")
		}
		r = b.one(Done, Apply{Path: "f", Target: file(""), Expect: r.Look.Sig, Mark: r.Look.Mark})
		b.one(Done, Apply{Path: "f", Target: signature.Signature{Type: signature.Absent}, Expect: r.Look.Sig, Mark: r.Look.Mark})
		b.one(Done, Apply{Path: "f", Target: signature.Signature{Type: signature.Absent}, Expect: r.Look.Sig, Mark: r.Look.Mark})
		b.one(Blocked, Apply{Path: "f", Target: file("x")})
		b.clean()
		if k := b.kept(); len(k) != 0 {
			t.Errorf("kept %+v", k)
		}
	})
}

var kinds = []signature.Type{
	signature.Absent, signature.File, signature.Folder, signature.Symlink, signature.Fifo,
	signature.Socket, signature.CharDevice, signature.BlockDevice,
}

func TestEveryFlip(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		shown := signature.Look{Sig: signature.Signature{Type: signature.Absent}}
		for _, from := range kinds {
			for _, to := range kinds {
				for _, k := range []signature.Type{from, to} {
					a := Apply{Path: "p", Target: kind(k), Expect: shown.Sig, Mark: shown.Mark}
					switch k {
					case signature.Absent:
						a.Target = signature.Signature{Type: k}
					case signature.File:
						a.Target = file("content")
						if shown.Sig.Type != k {
							a.Content = b.stage("x", "content")
						}
					}
					shown = b.one(Done, a).Look
				}
			}
		}
		b.clean()
		if k := b.kept(); len(k) != 0 {
			t.Errorf("kept %+v", k)
		}
	})
}

func TestFolderNotEmpty(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		b.one(Done, Apply{Path: "d", Target: kind(signature.Folder)})
		b.write("d/f", "x")
		l := b.look("d")
		b.one(NotEmpty, Apply{Path: "d", Target: file(""), Expect: l.Sig, Mark: l.Mark})
		b.one(NotEmpty, Apply{Path: "d", Target: signature.Signature{Type: signature.Absent}, Expect: l.Sig, Mark: l.Mark})
		must(t, os.Rename(b.at("d/f"), b.at("d/f.tmp")))
		b.one(Done, Apply{Path: "d", Target: signature.Signature{Type: signature.Absent}, Expect: l.Sig, Mark: l.Mark})
		k := b.kept()
		if len(k) != 1 || k[0].Path != "d" || k[0].Sig.Type != signature.Folder {
			t.Fatalf("kept %+v", k)
		}
		if c, err := os.ReadFile(filepath.Join(k[0].File, "f.tmp")); err != nil || string(c) != "x" {
			t.Errorf("kept %q, %v", c, err)
		}
		// A name that comes between the look and the exchange keeps the folder, too.
		b.one(Done, Apply{Path: "e", Target: kind(signature.Folder)})
		l = b.look("e")
		failpoint = func(step string, p signature.Path) {
			if step == "exchange" {
				b.write("e/late", "y")
			}
		}
		b.one(NotEmpty, Apply{Path: "e", Target: file(""), Expect: l.Sig, Mark: l.Mark})
		if got := b.read("e/late"); got != "y" {
			t.Errorf("e/late: %s", got)
		}
		b.clean()
	})
}

func TestNoParent(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		b.one(NoParent, Apply{Path: "no/f", Target: file("")})
		b.write("f", "x")
		b.one(NoParent, Apply{Path: "f/g", Target: file("")})
		must(t, os.Symlink("/", b.at("l")))
		b.one(NoParent, Apply{Path: "l/clsync-must-not-be", Target: file(""), Content: Content{}})
		b.one(Done, Apply{Path: "l/f", Target: signature.Signature{Type: signature.Absent}, Expect: file("x")})
		b.clean()
	})
}

func TestUnseenEdit(t *testing.T) {
	steps := map[string]func(b *bench){
		"written before": func(b *bench) { b.write("f", "mine") },
		"saved before":   func(b *bench) { b.write("g", "mine"); must(b.t, os.Rename(b.at("g"), b.at("f"))) },
	}
	for name, edit := range steps {
		t.Run(name, func(t *testing.T) {
			eachFS(t, func(t *testing.T, b *bench) {
				b.write("f", "held")
				l := b.look("f")
				edit(b)
				for _, a := range []Apply{
					{Path: "f", Target: file("new"), Content: b.stage("x", "new")},
					{Path: "f", Target: signature.Signature{Type: signature.Absent}},
					{Path: "f", Target: signature.Signature{Type: signature.File, Facts: signature.Facts{Mode: 0o600}, Size: 4, Hash: l.Sig.Hash}},
				} {
					a.Expect, a.Mark = l.Sig, l.Mark
					b.one(Moved, a)
					if got := b.read("f"); got != "mine" {
						b.t.Errorf("the local change is gone: %s", got)
					}
				}
				// What was staged is there for another attempt.
				if got := b.read(".clsync/staging/b1/x"); got != "new" {
					b.t.Errorf("staged: %s", got)
				}
				b.one(Moved, Apply{Path: "f", Target: file("new"), Content: Content{Batch: "b1", Staged: "x"}})
				b.clean()
			})
		})
	}
}

// TestUnseenEditInBetween plays a local user who saves, by rename, between the
// look and the switch; and after it.
func TestUnseenEditInBetween(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		save := func(content string) {
			b.write("g", content)
			must(b.t, os.Rename(b.at("g"), b.at("f")))
		}
		for name, tt := range map[string]struct {
			target    signature.Signature
			step      []string
			live, old string
		}{
			"before the exchange":    {file("new"), []string{"exchange"}, "mine 1", ""},
			"and after it":           {file("new"), []string{"exchange", "exchanged"}, "mine 2", "mine 1"},
			"and while it goes back": {file("new"), []string{"exchange", "put back"}, "mine 2", "mine 1"},
			"before the removal":     {signature.Signature{Type: signature.Absent}, []string{"remove"}, "mine 1", ""},
			"and after the removal":  {signature.Signature{Type: signature.Absent}, []string{"remove", "removed"}, "mine 2", "mine 1"},
		} {
			failpoint = func(string, signature.Path) {}
			b.write("f", "held")
			l := b.look("f")
			n := 0
			failpoint = func(step string, p signature.Path) {
				if n < len(tt.step) && step == tt.step[n] {
					n++
					save(fmt.Sprintf("mine %d", n))
				}
			}
			a := Apply{Path: "f", Target: tt.target, Expect: l.Sig, Mark: l.Mark}
			if tt.target.Exists() {
				a.Content = b.stage("x", "new")
			}
			r := b.one(Moved, a)
			if got := b.read("f"); got != tt.live {
				t.Errorf("%s: live %s, want %s", name, got, tt.live)
			}
			if (r.Kept != "") != (tt.old != "") {
				t.Errorf("%s: kept %q", name, r.Kept)
			}
			if r.Kept != "" {
				if got := b.read(".clsync/conflicts/" + r.Kept + "/content"); got != tt.old {
					t.Errorf("%s: kept %s, want %s", name, got, tt.old)
				}
				must(t, b.tree.RemoveConflict(r.Kept))
			}
			b.clean()
		}
	})
}

func TestBusy(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		b.write("f", "held")
		l := b.look("f")
		w, err := os.OpenFile(b.at("f"), os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		a := Apply{Path: "f", Target: file("new"), Expect: l.Sig, Mark: l.Mark, Content: b.stage("x", "new")}
		b.one(Busy, a)
		b.one(Busy, Apply{Path: "f", Target: signature.Signature{Type: signature.Absent}, Expect: l.Sig, Mark: l.Mark})
		if got := b.read("f"); got != "held" {
			t.Errorf("f: %s", got)
		}
		// Facts alone are set, and the inode stays.
		chmod := l.Sig
		chmod.Mode, chmod.MTime = 0o604, testTime
		r := b.one(Done, Apply{Path: "f", Target: chmod, Expect: l.Sig, Mark: l.Mark})
		if r.Look.Mark.Ino != l.Mark.Ino {
			t.Error("an open file was replaced")
		}
		w.Close()
		a.Expect, a.Mark = r.Look.Sig, r.Look.Mark
		b.one(Done, a)
		b.clean()
	})
}
