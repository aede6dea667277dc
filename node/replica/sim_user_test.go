package replica

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/clsync/clsync/signature"
)

var simNames = []signature.Path{"a", "b", "d", "d/x", "d/y", "d/e", "d/e/z", "f", "f/x"}

// use lets a user of node n do one thing. Every content is unique, so that each can
// be followed; what the user replaces, on a disk that shows it, is noted.
func (s *sim) use(n *simNode, rng *rand.Rand) {
	d := n.disk
	p := simNames[rng.IntN(len(simNames))]
	q := simNames[rng.IntN(len(simNames))]
	if !d.hasParent(p) {
		if up, ok := p.Parent(); ok && d.hasParent(up) && rng.IntN(2) == 0 {
			p = up
		} else {
			return
		}
	}
	at := d.names[p]
	switch k := rng.IntN(20); {
	case k < 5: // write in place
		if at != nil && at.kind != signature.File {
			return
		}
		s.write(n, p, s.fresh())
	case k < 6: // save by rename
		if at != nil && at.kind != signature.File {
			return
		}
		s.vacate(n, p)
		s.place(n, p, d.make(signature.File, 0o640, s.fresh()))
	case k < 7: // append
		if at == nil || at.kind != signature.File {
			return
		}
		s.write(n, p, at.content+"+"+s.fresh())
	case k < 8: // chmod
		if at == nil || at.kind == signature.Symlink {
			return
		}
		s.chmod(n, p)
	case k < 9: // touch
		if at == nil {
			return
		}
		s.touch(n, p, int64(rng.IntN(2))*int64(rng.IntN(1e9)))
	case k < 11: // mkdir
		if at == nil {
			s.place(n, p, d.make(signature.Folder, 0o755, ""))
		}
	case k < 13: // rm -r
		if at != nil {
			s.vacate(n, p)
		}
	case k < 15: // rename, also of folders, over what is there
		s.rename(n, p, q)
	case k < 17: // another type
		if at == nil {
			return
		}
		s.vacate(n, p)
		s.anything(n, p, rng)
	case k < 18: // link
		if at == nil || at.kind == signature.Folder || p == q || !d.hasParent(q) || d.names[q] != nil {
			return
		}
		s.place(n, q, at)
	case k < 19: // cp -p over a name
		to := d.names[q]
		if at == nil || at.kind != signature.File || p == q || !d.hasParent(q) || to != nil && (to.kind != signature.File || to == at) {
			return
		}
		s.write(n, q, at.content)
		to = d.names[q]
		to.mtime, to.mode = at.mtime, at.mode
	default: // ln -s
		if at == nil {
			s.place(n, p, d.make(signature.Symlink, 0, s.fresh()))
		}
	}
}

func (s *sim) chmod(n *simNode, p signature.Path) {
	at := n.disk.names[p]
	at.mode ^= 0o011
	at.ctime = n.disk.stamp()
	s.touched(n, n.disk.links(at)...)
	s.say("n%d chmod %s %o", n.id, p, at.mode)
}

func (s *sim) touch(n *simNode, p signature.Path, ago int64) {
	at := n.disk.names[p]
	at.ctime, at.mtime = n.disk.stamp(), n.disk.stamp()-ago
	s.touched(n, n.disk.links(at)...)
	s.say("n%d touch %s %d", n.id, p, at.mtime)
}

func (s *sim) anything(n *simNode, p signature.Path, rng *rand.Rand) {
	kind := []signature.Type{signature.File, signature.Folder, signature.Symlink}[rng.IntN(3)]
	c := ""
	if kind != signature.Folder {
		c = s.fresh()
	}
	s.place(n, p, n.disk.make(kind, 0o750, c))
}

// fresh makes a content of its own, all of one length.
func (s *sim) fresh() string {
	s.contents++
	return fmt.Sprintf("c%03d", s.contents)
}

func (s *sim) write(n *simNode, p signature.Path, content string) {
	d := n.disk
	at := d.names[p]
	if at == nil {
		s.place(n, p, d.make(signature.File, 0o644, content))
		return
	}
	for _, q := range d.links(at) {
		s.replaced[pair{q, at.content}] = true
		s.written[pair{q, content}] = true
	}
	at.content, at.mtime, at.ctime = content, d.stamp(), d.stamp()
	s.touched(n, d.links(at)...)
	s.say("n%d write %s %q to %v", n.id, p, content, d.links(at))
}

// place puts an inode at a free name.
func (s *sim) place(n *simNode, p signature.Path, at *inode) {
	n.disk.put(p, at)
	if at.kind != signature.Folder {
		s.written[pair{p, at.content}] = true
	}
	s.touched(n, n.disk.links(at)...)
	s.touched(n, p)
	s.touchedAbove(n, p)
	s.say("n%d place %s %s %q ino=%d links=%v", n.id, p, at.kind, at.content, at.ino, n.disk.links(at))
}

// vacate removes what stands at p, with all beneath.
func (s *sim) vacate(n *simNode, p signature.Path) {
	d := n.disk
	if d.names[p] == nil {
		return
	}
	for _, q := range append(reversed(d.beneath(p)), p) {
		at := d.names[q]
		if at.kind != signature.Folder {
			s.replaced[pair{q, at.content}] = true
		}
		links := d.links(at)
		d.remove(q)
		s.touched(n, links...)
		s.touched(n, q)
		s.touchedAbove(n, q)
	}
	s.say("n%d remove %s", n.id, p)
}

func (s *sim) rename(n *simNode, p, q signature.Path) {
	d := n.disk
	at, to := d.names[p], d.names[q]
	if at == nil || p == q || q.In(p) || p.In(q) || !d.hasParent(q) || at == to {
		return
	}
	if to != nil && (to.kind == signature.Folder) != (at.kind == signature.Folder) {
		return
	}
	if to != nil && len(d.children(q)) > 0 {
		return
	}
	s.vacate(n, q)
	moved := append([]signature.Path{p}, d.beneath(p)...)
	for _, old := range moved {
		m := d.names[old]
		as := q + old[len(p):]
		delete(d.names, old)
		d.names[as] = m
		if m.kind != signature.Folder {
			s.replaced[pair{old, m.content}] = true
			s.written[pair{as, m.content}] = true
		}
		s.touched(n, old, as)
		s.touched(n, d.links(m)...)
	}
	at.ctime = d.stamp()
	d.stir(p)
	d.stir(q)
	s.touchedAbove(n, p)
	s.touchedAbove(n, q)
	s.say("n%d rename %s to %s", n.id, p, q)
}

// touched says that a user changed these paths: each change may spend one version,
// and gives hints, most of which arrive.
func (s *sim) touched(n *simNode, ps ...signature.Path) {
	for _, p := range ps {
		n.edits[p]++
		if !n.deaf {
			n.hints = append(n.hints, p)
		}
	}
}

func (s *sim) touchedAbove(n *simNode, p signature.Path) {
	if up, ok := p.Parent(); ok {
		s.touched(n, up)
	}
}

func reversed(ps []signature.Path) []signature.Path {
	slices.Reverse(ps)
	return ps
}
