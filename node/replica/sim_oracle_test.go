package replica

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/clsync/clsync/signature"
)

func (s *sim) index(id signature.NodeID) int { return int(id[0]) - 1 }

// of follows a verdict to the change that it chose.
func (s *sim) of(d signature.Dot) signature.Dot {
	for {
		o, ok := s.origin[d]
		if !ok {
			return d
		}
		d = o
	}
}

func sortedBatches[T any](m map[uint64]T) []uint64 { return slices.Sorted(maps.Keys(m)) }

func (s *sim) busy() string {
	text := ""
	for _, n := range s.nodes {
		text += fmt.Sprintf("node %d: %+v wake %v stuck %v\n", n.id, n.core.State(), n.wake.Sub(n.time()), n.core.Stuck(5))
		for p := range n.core.pending {
			r, _ := n.ix.Get(p)
			text += fmt.Sprintf("  pending %s\n", showRecord(r))
		}
		for p := range n.core.conflicts {
			r, _ := n.ix.Get(p)
			text += fmt.Sprintf("  conflict %s\n", showRecord(r))
		}
	}
	return text
}

// judge holds the promises against a cluster that has come to rest.
func (s *sim) judge() {
	a := s.nodes[0]
	for _, n := range s.nodes {
		st := n.core.State()
		st.Local, st.PendingBytes = 0, 0
		if st != (State{}) {
			s.fail("undone: %s", s.busy())
		}
		if !n.core.Knowledge().Equal(a.core.Knowledge()) {
			s.fail("knowledge: nodes 0 and %d know %v and %v", n.id, a.core.Knowledge(), n.core.Knowledge())
		}
		if !n.core.Landed().Equal(n.core.Knowledge()) {
			s.fail("landed: node %d knows %v and landed %v", n.id, n.core.Knowledge(), n.core.Landed())
		}
		if x, y := a.disk.replicated(), n.disk.replicated(); x != y {
			s.fail("diverged: node 0\n%snode %d\n%s%s", x, n.id, y, s.records())
		}
		s.judgeLinks(n)
	}
	s.judgeContents()
}

// replicated is what all nodes must agree on.
func (d *fakeDisk) replicated() string {
	var b strings.Builder
	for _, p := range d.all() {
		n := d.names[p]
		mode := n.mode
		if n.kind == signature.Symlink {
			mode = 0
		}
		fmt.Fprintf(&b, "%s %s %o %d %q", p, n.kind, mode, n.mtime, n.content)
		if n.kind != signature.Folder {
			fmt.Fprint(&b, d.links(n))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// judgeLinks: names are linked if, and only if, their records say so.
func (s *sim) judgeLinks(n *simNode) {
	type entry struct {
		r signature.Record
		t target
	}
	var files []entry
	n.ix.Ascend("", func(r signature.Record) bool {
		if t, ok := n.core.targetOf(r); ok && t.Sig.Linkable() {
			files = append(files, entry{r, t})
		}
		return true
	})
	for i, x := range files {
		for _, y := range files[:i] {
			says := groupName(x.t.Version) == groupName(y.t.Version) && x.t.Sig == y.t.Sig
			if is := n.disk.names[x.r.Path] == n.disk.names[y.r.Path]; is != says {
				s.fail("links: node %d: %s and %s are linked: %v, their records say %v\n%s", n.id, x.r.Path, y.r.Path, is, says, s.records())
			}
		}
	}
}

// judgeContents: nothing is lost, and nothing that was replaced is visible.
func (s *sim) judgeContents() {
	seen := map[string]bool{}
	for _, n := range s.nodes {
		for _, m := range n.disk.names {
			seen[m.content] = true
		}
		for c := range n.store {
			seen[c] = true
		}
	}
	var lost []string
	for p := range s.written {
		if !s.replaced[p] && !seen[p.content] {
			lost = append(lost, fmt.Sprintf("%s of %s", p.content, p.path))
		}
	}
	if slices.Sort(lost); len(lost) > 0 {
		s.fail("lost: %v\n%s", lost, s.records())
	}
	s.nodes[0].ix.Ascend("", func(r signature.Record) bool {
		// A folder stands for what is in it, whoever replaced it.
		if len(r.Listed) > 0 && r.Listed[0].Sig.Type != signature.Folder && s.dead[s.of(r.Listed[0].Dot)] {
			s.fail("superseded: %s shows %v, which was replaced where it was shown\n%s", r.Path, r.Listed[0].Dot, s.records())
		}
		return true
	})
}

func (s *sim) records() string {
	text := ""
	for _, n := range s.nodes {
		text += fmt.Sprintf("node %d\n%s", n.id, n.disk)
		n.ix.Ascend("", func(r signature.Record) bool {
			text += "  " + showRecord(r) + "\n"
			return true
		})
	}
	return text
}

func showDot(d signature.Dot) string {
	if d.IsZero() {
		return "-"
	}
	return fmt.Sprintf("%d.%d:%d", d.Actor.Node[0]-1, d.Actor.Incarnation, d.Seq)
}

func showSig(s signature.Signature) string {
	t := s.Type.String()
	if s.Exists() {
		t += fmt.Sprintf(" %o @%d", s.Mode, (s.MTime-epoch.UnixNano())/1e6)
	}
	if s.Type == signature.File {
		t += fmt.Sprintf(" #%x", s.Hash.Sum[:3])
	}
	if !s.Group.IsZero() {
		t += " group " + showDot(s.Group)
	}
	if s.Kept.Set {
		t += fmt.Sprintf(" kept %o @%d", s.Kept.Mode, (s.Kept.MTime-epoch.UnixNano())/1e6)
	}
	return t + s.Target
}

func showVersion(v signature.Version) string {
	t := fmt.Sprintf("%s[%s ~%d]", showDot(v.Dot), showSig(v.Sig), (v.Stamp-epoch.UnixNano())/1e6)
	if v.Case != (signature.Case{}) {
		t += "!"
	}
	return t
}

var formNames = [...]string{"nothing", "plain", "implied", "local"}

func showRecord(r signature.Record) string {
	t := string(r.Path) + ": lists"
	for _, v := range r.Listed {
		t += " " + showVersion(v)
	}
	return fmt.Sprintf("%s; held %s %s; shown %s; ino %d links %d", t, showDot(r.Held.Version.Dot), formNames[r.Held.Form], showSig(r.Shown), r.Mark.Ino, r.Mark.Links)
}

func showKnowledge(k signature.Knowledge) string {
	t := ""
	for _, a := range k.Actors() {
		t += " " + showDot(signature.Dot{Actor: a, Seq: k[a]})
	}
	return "(" + strings.TrimSpace(t) + ")"
}

// show says an event or effects in few words, to the last of them.
func show(x any) string {
	switch x := x.(type) {
	case Hinted:
		return fmt.Sprintf("hinted %v deep %v", x.Paths, x.Deep)
	case Scanned:
		t := fmt.Sprintf("scanned %q", x.Folder)
		for _, e := range x.Entries {
			t += " " + string(e.Path)
		}
		return t
	case Looked:
		t := "looked"
		for _, l := range x.Looks {
			what := showSig(l.Look.Sig)
			if l.Look.Unchanged {
				what = "unchanged"
			}
			if l.Look.Err != nil || l.Later > 0 {
				what = "not yet"
			}
			t += fmt.Sprintf("; %s %s ino %d", l.Task.Path, what, l.Look.Mark.Ino)
		}
		return t
	case PeerUp:
		return fmt.Sprintf("up n%d %s %s", x.ID[0]-1, showKnowledge(x.Known), showKnowledge(x.Landed))
	case PeerDown:
		return fmt.Sprintf("down n%d", x.ID[0]-1)
	case HeadIn:
		return fmt.Sprintf("head n%d %s %s", x.ID[0]-1, showKnowledge(x.Known), showKnowledge(x.Landed))
	case CutIn:
		return fmt.Sprintf("cut n%d %s", x.From[0]-1, showCut(x.Cut))
	case Applied:
		t := "applied"
		for _, r := range x.Results {
			t += fmt.Sprintf("; %s %s shows %s kept %v", r.Task.Path, r.Outcome, showSig(r.Look.Sig), r.Kept)
		}
		return t
	case Fetched:
		t := fmt.Sprintf("fetched %d", x.Batch)
		for _, it := range x.Items {
			t += fmt.Sprintf(" %s=%d", it.Path, it.Outcome)
		}
		return t
	case Stored:
		return fmt.Sprintf("stored %s %s %v", x.Task.Path, showVersion(x.Task.Version), x.OK)
	case Effects:
		return showEffects(x)
	}
	return fmt.Sprintf("%T", x)
}

func showCut(c Cut) string {
	t := showKnowledge(c.Knowledge)
	for _, l := range c.Listings {
		t += "; " + string(l.Path)
		for _, v := range l.Versions {
			t += " " + showVersion(v)
		}
	}
	return t
}

func showEffects(fx Effects) string {
	var ts []string
	add := func(format string, args ...any) { ts = append(ts, fmt.Sprintf(format, args...)) }
	if len(fx.Cleared) > 0 {
		add("cleared %v", fx.Cleared)
	}
	if fx.Save {
		add("save")
	}
	for _, n := range fx.Notices {
		add("notice %d %s %s", n.Kind, n.Path, n.Text)
	}
	for _, c := range fx.Cuts {
		add("cut to n%d %s", c.To[0]-1, showCut(c.Cut))
	}
	for _, id := range fx.Acks {
		add("ack n%d", id[0]-1)
	}
	if fx.Heads {
		add("heads")
	}
	for _, l := range fx.Looks {
		add("look %s final %v", l.Path, l.Final)
	}
	if len(fx.Scans) > 0 {
		add("scan %q", fx.Scans)
	}
	for _, st := range fx.Store {
		add("store %s %s", st.Path, showVersion(st.Version))
	}
	for _, a := range fx.Apply {
		add("apply %s: %s (%s) for %s, source %d %s, keep %v", a.Path, showSig(a.Target), showDot(a.Version.Dot), showSig(a.Expect), a.Source, a.Name, a.Keep != nil)
	}
	for _, f := range fx.Fetch {
		add("fetch %d of n%d", f.Batch, f.From[0]-1)
		for _, it := range f.Items {
			add("%s %s #%x", it.Path, showDot(it.Dot), it.Hash.Sum[:3])
		}
	}
	if len(fx.Release) > 0 {
		add("release %v", fx.Release)
	}
	if !fx.Wake.IsZero() {
		add("wake %d", fx.Wake.Sub(epoch).Milliseconds())
	}
	return strings.Join(ts, "; ")
}
