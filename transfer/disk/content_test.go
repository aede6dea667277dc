package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

var gone = signature.Signature{Type: signature.Absent}

func TestMoveFrom(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		for _, deleteFirst := range []bool{false, true} {
			b.write("a", "content")
			l := b.look("a")
			move := Apply{Path: "b", Target: file("content"), Content: Content{MoveFrom: "a", Sig: l.Sig, Mark: l.Mark}}
			del := Apply{Path: "a", Target: gone, Expect: l.Sig, Mark: l.Mark}
			var r Applied
			if deleteFirst {
				out := b.apply(del, move)
				b.want(out[0], Done, del)
				b.want(out[1], Done, move)
				r = out[1]
			} else {
				out := b.apply(move, del)
				b.want(out[0], Done, move)
				b.want(out[1], Done, del)
				r = out[0]
			}
			if r.Look.Mark.Ino != l.Mark.Ino {
				t.Error("moved to another inode")
			}
			b.one(Done, Apply{Path: "b", Target: gone, Expect: r.Look.Sig, Mark: r.Look.Mark})
		}
		// The name is taken: the file goes back, as it was.
		b.write("a", "content")
		b.write("b", "taken")
		l := b.look("a")
		move := Apply{Path: "b", Target: file("content"), Content: Content{MoveFrom: "a", Sig: l.Sig, Mark: l.Mark}}
		b.one(Moved, move)
		if got := b.look("a"); got.Sig != l.Sig || got.Mark.Ino != l.Mark.Ino {
			t.Errorf("given back as %+v, was %+v", got, l)
		}
		// The source is not what it was.
		must(t, os.Remove(b.at("b")))
		b.write("a", "changed")
		r := b.one(Blocked, move)
		if !errors.Is(r.Err, ErrSource) || b.read("a") != "changed" {
			t.Errorf("%v, a: %s", r.Err, b.read("a"))
		}
		// Another name of the source is not changed with it.
		b.write("a", "content")
		must(t, os.Link(b.at("a"), b.at("a2")))
		l = b.look("a")
		move.Content.Sig, move.Content.Mark = l.Sig, l.Mark
		out := b.apply(move, Apply{Path: "a", Target: gone, Expect: l.Sig, Mark: l.Mark})
		b.want(out[0], Done, move)
		if got := b.look("a2"); out[1].Outcome != Done || got.Sig != l.Sig || got.Mark.Links != 1 {
			t.Errorf("%+v, a2: %+v", out[1], got)
		}
		b.clean()
	})
}

func TestCopyFrom(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		b.write("a", "content")
		b.one(Done, Apply{Path: "b", Target: file("content"), Content: Content{CopyFrom: "a"}})
		r := b.one(Blocked, Apply{Path: "c", Target: file("CONTENT"), Content: Content{CopyFrom: "a"}})
		if !errors.Is(r.Err, ErrSource) {
			t.Error(r.Err)
		}
		must(t, os.Symlink("a", b.at("l")))
		must(t, unix.Mkfifo(b.at("p"), 0o600))
		for _, p := range []signature.Path{"l", "p", "none", "../a"} {
			r := b.one(Blocked, Apply{Path: "c", Target: file("content"), Content: Content{CopyFrom: p}})
			if !errors.Is(r.Err, ErrSource) {
				t.Errorf("from %s: %v", p, r.Err)
			}
		}
		b.clean()
	})
}

func TestSparse(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		f, err := os.Create(b.at("a"))
		must(t, err)
		must(t, f.Truncate(20<<20))
		_, err = f.WriteAt([]byte("middle"), 10<<20)
		must(t, err)
		must(t, f.Close())
		l := b.look("a")
		b.one(Done, Apply{Path: "b", Target: l.Sig, Content: Content{CopyFrom: "a"}})
		var st unix.Stat_t
		must(t, unix.Stat(b.at("b"), &st))
		if st.Blocks*512 > 1<<20 {
			t.Errorf("a sparse file takes %d bytes", st.Blocks*512)
		}
	})
}

func TestHardLinks(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		group := []Apply{
			{Path: "a", Target: file("one"), Content: b.stage("x", "one")},
			{Path: "b", Target: file("one"), Content: Content{LinkTo: "a"}},
			{Path: "c", Target: file("one"), Content: Content{LinkTo: "b"}},
		}
		step := func(want uint32) {
			t.Helper()
			out := b.apply(group...)
			for i, r := range out {
				b.want(r, Done, group[i])
				if r.Look.Mark.Links != want || r.Look.Mark.Ino != out[0].Look.Mark.Ino {
					t.Fatalf("%s: %d links, inode %d", r.Path, r.Look.Mark.Links, r.Look.Mark.Ino)
				}
				group[i].Expect, group[i].Mark = r.Look.Sig, r.Look.Mark
			}
		}
		step(3)
		group[0].Target, group[0].Content = file("two"), b.stage("x", "two")
		group[1].Target, group[2].Target = file("two"), file("two")
		step(3)
		step0 := group[0].Mark.Ino
		// Facts of a group: every name is listed, one inode is set.
		for i := range group {
			group[i].Target.Mode, group[i].Content = 0o4755, Content{}
		}
		step(3)
		if group[0].Mark.Ino != step0 {
			t.Error("other facts, other inode")
		}
		// Already linked as it should be.
		for i := range group[1:] {
			group[i+1].Content.LinkTo = "a"
		}
		step(3)
		for i := range group {
			group[i].Target, group[i].Content = gone, Content{}
		}
		for i, r := range b.apply(group...) {
			b.want(r, Done, group[i])
		}
		// The leader is not what the target says.
		b.write("a", "other")
		r := b.one(Blocked, Apply{Path: "b", Target: file("one"), Content: Content{LinkTo: "a"}})
		if !errors.Is(r.Err, ErrSource) {
			t.Error(r.Err)
		}
		b.clean()
	})
}

func TestFacts(t *testing.T) {
	acl := "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\x05\x00\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff"
	caps := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	eachFS(t, func(t *testing.T, b *bench) {
		rich := file("one")
		rich.Mode = 0o6740 // the ACL's mask is the group's bits
		rich.Xattrs = signature.EncodeXattrs([]signature.Xattr{
			{Name: "security.capability", Value: caps}, {Name: "system.posix_acl_access", Value: acl},
			{Name: "trusted.t", Value: "\x00\xff"}, {Name: "user.u", Value: strings.Repeat("u", 500)},
		})
		acl2 := strings.Replace(acl, "\x01\x00\x06", "\x01\x00\x07", 1)
		rich.Xattrs = signature.Xattrs(strings.Replace(string(rich.Xattrs), acl, acl2, 1))
		r := b.one(Done, Apply{Path: "f", Target: rich, Content: b.stage("x", "one")})
		// Another owner drops setuid and the capabilities on the way; both are there after.
		for _, change := range []func(*signature.Signature){
			func(s *signature.Signature) { s.UID, s.GID = 77, 88 },
			func(s *signature.Signature) { s.Xattrs = ""; s.Mode = 0o4755 },
			func(s *signature.Signature) { s.UID = 0; s.MTime-- },
			func(s *signature.Signature) { *s = rich },
			func(s *signature.Signature) { s.MTime = -1_000_000_001 },
		} {
			a := Apply{Path: "f", Target: r.Look.Sig, Expect: r.Look.Sig, Mark: r.Look.Mark}
			change(&a.Target)
			ino := r.Look.Mark.Ino
			if r = b.one(Done, a); r.Look.Mark.Ino != ino {
				t.Error("other facts, other inode")
			}
		}
		r = b.one(Done, Apply{Path: "f", Target: func() signature.Signature { s := rich; n := file("two"); s.Size, s.Hash = n.Size, n.Hash; return s }(), Expect: r.Look.Sig, Mark: r.Look.Mark, Content: b.stage("x", "two")})
		// A symlink's and a device's facts.
		for _, k := range []signature.Type{signature.Symlink, signature.BlockDevice, signature.Fifo, signature.Folder} {
			p := signature.Path(k.String())
			s := kind(k)
			r := b.one(Done, Apply{Path: p, Target: s})
			s.UID, s.GID, s.MTime = 1000, 1001, testTime-5
			s.Xattrs = signature.EncodeXattrs([]signature.Xattr{{Name: "trusted.k", Value: "v"}})
			if k == signature.Folder {
				s.Mode = 0o2775
			}
			ino := r.Look.Mark.Ino
			if r = b.one(Done, Apply{Path: p, Target: s, Expect: r.Look.Sig, Mark: r.Look.Mark}); r.Look.Mark.Ino != ino {
				t.Errorf("%s has another inode", k)
			}
		}
		// What is not replicated is refused, not written.
		bad := file("one")
		bad.Xattrs = signature.EncodeXattrs([]signature.Xattr{{Name: "security.ima", Value: "x"}})
		b.one(Blocked, Apply{Path: "g", Target: bad, Content: b.stage("x", "one")})
		b.clean()
	})
}

func TestFolderTimes(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		must(t, os.MkdirAll(b.at("old/sub"), 0o755))
		past := time.Unix(0, testTime-1000)
		for _, p := range []string{"old/sub", "old"} {
			must(t, os.Chtimes(b.at(p), past, past))
		}
		mtime := func(p string) time.Time { return time.Unix(0, b.look(p).Sig.MTime) }
		sub := kind(signature.Folder)
		as := []Apply{
			{Path: "new", Target: sub},
			{Path: "new/f", Target: file("one"), Content: b.stage("x", "one")},
			{Path: "new/d", Target: sub},
			{Path: "new/d/f", Target: file("")},
			{Path: "old/f", Target: file("")},
			{Path: "old/sub/f", Target: file("")},
		}
		out := b.apply(as...)
		for i, r := range out {
			b.want(r, Done, as[i])
		}
		for _, p := range []string{"old", "old/sub"} {
			if !mtime(p).Equal(past) {
				t.Errorf("%s: our hand moved its time to %v", p, mtime(p))
			}
		}
		// A folder whose own time changes in the batch, with its child.
		s := sub
		s.MTime = testTime + 7
		as = []Apply{
			{Path: "new/f", Target: gone, Expect: out[1].Look.Sig, Mark: out[1].Look.Mark},
			{Path: "new", Target: s, Expect: out[0].Look.Sig, Mark: out[0].Look.Mark},
		}
		for i, r := range b.apply(as...) {
			b.want(r, Done, as[i])
		}
		// A local user who comes in between is not painted over.
		failpoint = func(step string, p signature.Path) {
			if step == "create" && p == "old/h" {
				b.write("old/mine", "x")
			}
		}
		b.apply(Apply{Path: "old/g", Target: file("")}, Apply{Path: "old/h", Target: file("")}, Apply{Path: "old/i", Target: file("")})
		b.apply(Apply{Path: "old/sub/g", Target: file("")})
		if !mtime("old/sub").Equal(past) {
			t.Error("old/sub: our hand moved its time")
		}
		b.clean()
	})
}

func TestHostileNames(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		for _, n := range []string{"-rf", "a\nb", "\xff\xfe", "'\"$(x)`*?[", strings.Repeat("n", 255), ".clsync2", " ", "..."} {
			p := signature.Path(n)
			r := b.one(Done, Apply{Path: p, Target: file("one"), Content: b.stage("x", "one")})
			r = b.one(Done, Apply{Path: p, Target: file("two"), Expect: r.Look.Sig, Mark: r.Look.Mark, Content: b.stage("x", "two"), Keep: "case", Note: Note{Why: n}})
			c, err := b.tree.Conflict(r.Kept)
			must(t, err)
			if c.Path != p {
				t.Errorf("kept as %q, was %q", c.Path, p)
			}
			b.one(Done, Apply{Path: p, Target: gone, Expect: r.Look.Sig, Mark: r.Look.Mark})
		}
		b.clean()
	})
}

func TestLongPath(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		p := ""
		var as []Apply
		for len(p) < 3700 {
			p = filepath.Join(p, strings.Repeat("d", 250))
			as = append(as, Apply{Path: signature.Path(p), Target: kind(signature.Folder)})
		}
		p += "/" + strings.Repeat("f", 255)
		as = append(as, Apply{Path: signature.Path(p), Target: file("one"), Content: b.stage("x", "one")})
		if len(p) < 4000 {
			t.Fatalf("only %d bytes", len(p))
		}
		out := b.apply(as...)
		for i, r := range out {
			b.want(r, Done, as[i])
		}
		for i := len(as) - 1; i >= 0; i-- { // children first
			a := Apply{Path: as[i].Path, Target: gone, Expect: out[i].Look.Sig, Mark: out[i].Look.Mark}
			b.one(Done, a)
		}
		// Staged as deep as it will stand.
		dir, err := b.tree.Batch("b1")
		must(t, err)
		fd, err := unix.Open(dir, unix.O_PATH, 0)
		must(t, err)
		elems := strings.Split(p, "/")
		for _, e := range elems[:len(elems)-1] {
			must(t, unix.Mkdirat(fd, e, 0o700))
			next, err := unix.Openat(fd, e, unix.O_PATH, 0)
			must(t, err)
			unix.Close(fd)
			fd = next
		}
		f, err := unix.Openat(fd, elems[len(elems)-1], unix.O_CREAT|unix.O_WRONLY, 0o600)
		must(t, err)
		unix.Close(f)
		unix.Close(fd)
		b.one(Done, Apply{Path: "f", Target: file(""), Content: Content{Batch: "b1", Staged: p}})
		must(t, b.tree.RemoveBatch("b1"))
		b.clean()
	})
}

func TestManyPaths(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		b.mode = SyncAuto
		var as []Apply
		as = append(as, Apply{Path: "d", Target: kind(signature.Folder)})
		for i := range 200 {
			n := string(rune('a'+i%26)) + strings.Repeat("x", i/26)
			as = append(as, Apply{Path: signature.Path("d/" + n), Target: file(n), Content: b.stage(n, n)})
		}
		out := b.apply(as...)
		for i, r := range out {
			b.want(r, Done, as[i])
		}
		done, cancel := context.WithCancel(context.Background())
		cancel()
		r, err := b.tree.Apply(done, []Apply{{Path: "late", Target: file("")}}, SyncAuto)
		must(t, err)
		if r[0].Outcome != Blocked || !errors.Is(r[0].Err, context.Canceled) {
			t.Errorf("after cancel: %+v", r[0])
		}
		b.clean()
	})
}

// A staged content outlives an apply that fails for another reason, and one that is
// gone is told apart, so that it is fetched again.
func TestStagedContentIsNotLost(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		target := file("content")
		target.Xattrs = signature.EncodeXattrs([]signature.Xattr{{Name: "security.selinux", Value: "not replicated here"}})
		staged := b.stage("x", "content")
		for range 2 {
			if r := b.one(Blocked, Apply{Path: "f", Target: target, Content: staged}); errors.Is(r.Err, ErrContent) {
				t.Fatal(r.Err)
			}
		}
		b.one(Done, Apply{Path: "f", Target: file("content"), Content: staged})
		for _, gone := range []Content{staged, {Batch: "b2", Staged: "x"}, {Batch: "b1", Staged: "d/x"}} {
			if r := b.one(Blocked, Apply{Path: "g", Target: file("content"), Content: gone}); !errors.Is(r.Err, ErrContent) {
				t.Error(r.Err)
			}
		}
		b.clean()
	})
}

// Facts of which only some can be set are set back: a mixture is nobody's version.
func TestHalfAmendedIsSetBack(t *testing.T) {
	eachFS(t, func(t *testing.T, b *bench) {
		b.write("f", "content")
		before := b.look("f")
		target := before.Sig
		target.UID, target.Mode, target.MTime = 77, 0o600, testTime
		target.Xattrs = signature.EncodeXattrs([]signature.Xattr{
			{Name: "trusted.a", Value: "set"}, {Name: "trusted.b", Value: strings.Repeat("x", 65<<10)}, // no file system takes that
		})
		b.one(Blocked, Apply{Path: "f", Target: target, Expect: before.Sig, Mark: before.Mark})
		if got := b.look("f"); got.Sig != before.Sig {
			t.Errorf("shows %+v, was %+v", got.Sig, before.Sig)
		}
	})
}
