package replica

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/index"
)

// A simNode is a core and a shell around it that does what node's tree does: it
// looks, scans, applies, stores and fetches, each in its own time.
type simNode struct {
	s      *sim
	id     int
	node   signature.NodeID
	skew   time.Duration
	actor  signature.Actor
	ix     *index.Memory
	core   *Core
	disk   *fakeDisk
	store  map[string]bool // the conflict store: contents
	staged map[Staged]string
	moment map[signature.Path]string // snapshots of what did not come to rest

	down  bool
	life  int
	wake  time.Time
	inbox []Event
	looks [][]LookTask
	jobs  []func(*rand.Rand) // one after the other
	scan  []scanStep
	hints []signature.Path
	deaf  bool // hints are lost
	serve []serveJob

	blocked map[signature.Path]bool // can be neither applied nor read
	fetches map[uint64]FetchTask

	edits   map[signature.Path]int // by users
	minted  map[signature.Path]int // versions, as far as saved
	unsaved []signature.Path
	dead    []signature.Dot // replaced, but not yet saved
	dying   bool            // dies at the next point at which it may
}

type serveJob struct {
	to      int
	session int
	task    FetchTask
	marks   []signature.StatMark
	here    []bool
}

// scanStep is a folder to be read, or one that was, to be handed on.
type scanStep struct {
	folder  signature.Path
	entries []Entry
	read    bool
	last    bool
	from    signature.Path
}

func (s *sim) newNode(id int) *simNode {
	n := &simNode{
		s: s, id: id, node: signature.NodeID{byte(id + 1)}, ix: index.NewMemory(), store: map[string]bool{},
		edits: map[signature.Path]int{}, minted: map[signature.Path]int{}, blocked: map[signature.Path]bool{},
	}
	n.disk = newDisk(func() int64 { return n.time().UnixNano() })
	n.actor = signature.Actor{Node: n.node, Incarnation: 1}
	return n
}

func (n *simNode) time() time.Time { return n.s.now.Add(n.skew) }

// start begins a life from what is durable.
func (n *simNode) start() {
	n.down, n.life = false, n.life+1
	n.inbox, n.looks, n.jobs, n.scan, n.hints, n.serve = nil, nil, nil, nil, nil, nil
	n.fetches, n.staged, n.unsaved = map[uint64]FetchTask{}, map[Staged]string{}, nil
	n.moment = map[signature.Path]string{}
	n.ix.Discard()
	meta := n.ix.Meta()
	if meta.Actor != n.actor {
		meta.Reserved = 0
	}
	var ledger []LedgerEntry
	n.ix.Ledger(func(e index.LedgerEntry) bool {
		ledger = append(ledger, LedgerEntry{Path: e.Path, Version: e.Version, Form: e.Form, Target: e.Target})
		return true
	})
	n.core = New(Config{Self: n.actor, Delay: n.s.delay}, n.ix, Start{Seq: meta.Reserved, Knowledge: meta.Knowledge, Ledger: ledger})
	n.inbox = append(n.inbox, Hinted{Paths: []signature.Path{""}, Deep: true})
}

func (n *simNode) crash() {
	n.s.say("n%d crash", n.id)
	n.down, n.wake, n.dying = true, time.Time{}, false
	n.ix.Discard()
	for _, p := range n.unsaved {
		n.minted[p]--
	}
	n.unsaved, n.dead = nil, nil
	for o := range n.s.nodes {
		if o != n.id {
			n.s.disconnect(n.id, o)
		}
	}
}

// step hands one event to the core and carries out what it asks for.
func (n *simNode) step(ev Event, rng *rand.Rand) {
	before := n.core.Seq()
	old := map[signature.Path]signature.Record{}
	n.ix.Ascend("", func(r signature.Record) bool { old[r.Path] = r; return true })
	if n.s.trace != nil {
		n.s.say("n%d < %s", n.id, show(ev))
	}
	fx := n.core.Step(n.time(), ev)
	if n.s.trace != nil {
		n.s.say("n%d > %s", n.id, show(fx))
	}
	n.spent(old, before)
	for _, e := range fx.Ledger {
		n.ix.PutLedger([]index.LedgerEntry{{Path: e.Path, Version: e.Version, Form: e.Form, Target: e.Target}})
	}
	n.ix.ClearLedger(fx.Cleared)
	if n.dying && rng.IntN(3) == 0 {
		n.crash()
		return
	}
	if fx.Save || rng.IntN(8) == 0 {
		n.commit()
	}
	n.wake = fx.Wake
	n.perform(fx, rng)
}

func (n *simNode) commit() {
	meta := n.ix.Meta()
	meta.Actor, meta.Reserved, meta.Knowledge = n.actor, n.core.Seq(), n.core.Knowledge()
	if err := n.ix.Commit(meta); err != nil {
		n.s.fail("commit: %v", err)
	}
	for _, d := range n.dead {
		n.s.dead[d] = true
	}
	n.unsaved, n.dead = nil, nil
}

// spent follows the versions that a step made: each must stand for something that
// a user did here.
func (n *simNode) spent(old map[signature.Path]signature.Record, before uint64) {
	if n.core.Seq() == before {
		return
	}
	n.ix.Ascend("", func(r signature.Record) bool {
		v := r.Held.Version
		if v.Dot.Actor != n.actor || v.Dot.Seq <= before {
			return true
		}
		was := old[r.Path]
		if v.Case != (signature.Case{}) {
			n.s.verdicts++
			for _, w := range was.Listed {
				if w.Stamp == v.Stamp && w.Sig.SameContent(v.Sig) {
					n.s.origin[v.Dot] = n.s.of(w.Dot)
					break
				}
			}
			return true
		}
		delete(n.s.origin, v.Dot) // of a verdict that a crash has undone
		n.dead = append(n.dead, n.s.of(was.Held.Version.Dot))
		n.minted[r.Path]++
		n.unsaved = append(n.unsaved, r.Path)
		if n.minted[r.Path] > n.edits[r.Path] {
			n.s.fail("echo: node %d made version %v of %s, which nobody touched; held %v", n.id, v.Dot, r.Path, was.Held.Version.Dot)
		}
		return true
	})
}

// perform carries out effects. A node that dies does so between any two of them.
func (n *simNode) perform(fx Effects, rng *rand.Rand) {
	for _, x := range fx.Notices {
		if x.Kind == NoticeAlarm {
			n.s.fail("alarm at node %d: %s: %s", n.id, x.Path, x.Text)
		}
	}
	die := func() bool {
		if n.dying && rng.IntN(4) == 0 {
			n.crash()
		}
		return n.down
	}
	for _, id := range fx.Acks {
		n.s.send(n.id, n.s.index(id), message{kind: ackMessage})
	}
	if die() {
		return
	}
	for _, c := range fx.Cuts {
		n.s.send(n.id, n.s.index(c.To), message{kind: cutMessage, cut: c.Cut})
	}
	if die() {
		return
	}
	if fx.Heads {
		for o := range n.s.nodes {
			if o != n.id {
				n.s.send(n.id, o, n.head(false))
			}
		}
	}
	if len(fx.Apply) > 0 {
		n.jobs = append(n.jobs, func(rng *rand.Rand) { n.apply(fx.Apply, rng) })
	}
	for _, t := range fx.Store {
		n.jobs = append(n.jobs, func(rng *rand.Rand) { n.storeTask(t, rng) })
	}
	if die() {
		return
	}
	for _, f := range fx.Fetch {
		n.fetches[f.Batch] = f
		if !n.s.send(n.id, n.s.index(f.From), message{kind: wantMessage, want: f}) {
			n.fetched(f, nil)
		}
	}
	for _, b := range fx.Release {
		n.jobs = append(n.jobs, func(*rand.Rand) {
			for st := range n.staged {
				if st.Batch == b {
					delete(n.staged, st)
				}
			}
		})
	}
	if len(fx.Looks) > 0 {
		n.looks = append(n.looks, fx.Looks)
	}
	for _, p := range fx.Scans {
		if len(n.scan) > 0 {
			n.s.fail("node %d: two scans at a time", n.id)
		}
		if p != "" {
			n.inbox = append(n.inbox, Hinted{Paths: []signature.Path{p}})
		}
		n.scan = []scanStep{{folder: p, from: p, last: true}}
	}
}

func (n *simNode) head(begin bool) message {
	return message{kind: headMessage, begin: begin, known: n.core.Knowledge().Clone(), landed: n.core.Landed()}
}

// lookStep looks at what was asked for, perhaps at half of it.
func (n *simNode) lookStep(rng *rand.Rand) {
	tasks := n.looks[0]
	n.looks = n.looks[1:]
	ev := Looked{}
	for _, t := range tasks {
		seen := Seen{Task: t, Look: n.disk.look(t.Path, t.Shown, t.Mark)}
		switch {
		case n.blocked[t.Path]:
			seen.Look = signature.Look{Path: t.Path, Err: fmt.Errorf("not now")}
		case t.Moving > 0 && seen.Look.Sig.Type == signature.File && seen.Look.Mark.Links == 1 && rng.IntN(2) == 0:
			n.moment[t.Path] = n.disk.names[t.Path].content
			seen.Look.Mark.CTime, seen.Look.Mark.Looked = 0, 0
		case rng.IntN(50) == 0:
			seen.Look, seen.Later = signature.Look{Path: t.Path}, 30*time.Millisecond
		default:
			delete(n.moment, t.Path)
		}
		ev.Looks = append(ev.Looks, seen)
		if rng.IntN(60) == 0 {
			n.s.use(n, rng) // in the middle of a batch
		}
	}
	n.inbox = append(n.inbox, ev)
}

// scanStep reads a folder, or hands on what was read; a folder is handed on after
// those in it.
func (n *simNode) scanOne() {
	at := n.scan[len(n.scan)-1]
	if at.read {
		n.scan = n.scan[:len(n.scan)-1]
		n.inbox = append(n.inbox, Scanned{Folder: at.folder, Entries: at.entries})
	} else {
		n.scan[len(n.scan)-1].read = true
		if !n.disk.folder(at.folder) {
			n.scan = n.scan[:len(n.scan)-1]
		} else {
			var inner []scanStep
			for _, p := range n.disk.children(at.folder) {
				m := n.disk.names[p]
				n.scan[len(n.scan)-1].entries = append(n.scan[len(n.scan)-1].entries, Entry{p, n.disk.mark(m)})
				if m.kind == signature.Folder {
					inner = append(inner, scanStep{folder: p})
				}
			}
			slices.Reverse(inner)
			n.scan = append(n.scan, inner...)
		}
	}
	if len(n.scan) == 0 {
		n.inbox = append(n.inbox, ScanDone{Path: at.from})
	}
}

func (n *simNode) apply(tasks []ApplyTask, rng *rand.Rand) {
	r := &fakeRun{
		d: n.disk, stop: -1,
		staged: func(st Staged) (string, bool) { c, ok := n.staged[st]; return c, ok },
		used:   func(st Staged) { delete(n.staged, st) },
		keep:   func(_ signature.Path, c string) { n.store[c] = true },
		refuse: func(p signature.Path) (Outcome, bool) {
			switch {
			case n.blocked[p]:
				return Blocked, true
			case !n.s.calm && rng.IntN(30) == 0:
				return Busy, true
			}
			return Done, false
		},
		between: func() {
			if !n.s.calm && rng.IntN(40) == 0 {
				n.s.use(n, rng)
			}
		},
	}
	if n.dying && rng.IntN(2) == 0 {
		r.stop, r.half = rng.IntN(len(tasks)+1), rng.IntN(2) == 0
	}
	results, whole := r.run(tasks)
	for _, t := range tasks { // the monitor sees what we do, too
		n.hints = append(n.hints, t.Path)
		if up, ok := t.Path.Parent(); ok {
			n.hints = append(n.hints, up)
		}
	}
	if n.s.trace != nil {
		n.s.say("n%d applied %v\n%s", n.id, whole, n.disk)
	}
	if !whole {
		n.crash()
		return
	}
	n.inbox = append(n.inbox, Applied{results})
}

func (n *simNode) storeTask(t StoreTask, rng *rand.Rand) {
	c, ok := t.Version.Sig.Target, true
	if t.Version.Sig.Type == signature.File {
		c, ok = n.staged[t.Staged]
	}
	if !n.s.calm && rng.IntN(10) == 0 {
		ok = false
	}
	if t.Asks() {
		for k := range n.store {
			if hashOf(k) == t.Version.Sig.Hash {
				c, ok = k, true
			}
		}
	}
	if ok {
		n.store[c] = true
	}
	n.inbox = append(n.inbox, Stored{t, ok})
}

// wanted begins to serve a peer.
func (n *simNode) wanted(from, session int, t FetchTask) {
	j := serveJob{to: from, session: session, task: t}
	for _, it := range t.Items {
		m, ok := n.core.Serves(it.Path, it.Hash)
		j.marks, j.here = append(j.marks, m), append(j.here, ok)
	}
	n.serve = append(n.serve, j)
}

// serveStep sends what the disk shows now, or the conflict store has.
func (n *simNode) serveStep(rng *rand.Rand) {
	j := n.serve[0]
	n.serve = n.serve[1:]
	got := make([]string, len(j.task.Items))
	for i, it := range j.task.Items {
		at := n.disk.names[it.Path]
		if !n.s.calm && rng.IntN(20) == 0 {
			got[i] = "failed"
			continue
		}
		if j.here[i] && at != nil && n.disk.mark(at).Same(j.marks[i]) && at.kind == signature.File {
			got[i] = "=" + at.content
			continue
		}
		for c := range n.store {
			if hashOf(c) == it.Hash {
				got[i] = "=" + c
			}
		}
		for _, c := range n.moment {
			if hashOf(c) == it.Hash {
				got[i] = "=" + c
			}
		}
	}
	n.s.sendIn(n.id, j.to, j.session, message{kind: doneMessage, want: j.task, got: got})
}

// fetched takes in what a peer has sent; nil if its session has ended.
func (n *simNode) fetched(t FetchTask, got []string) {
	if _, ok := n.fetches[t.Batch]; !ok {
		return
	}
	delete(n.fetches, t.Batch)
	ev := Fetched{Batch: t.Batch}
	for i, it := range t.Items {
		f := FetchedItem{FetchItem: it, Outcome: Failed}
		switch {
		case got == nil || got[i] == "failed":
		case got[i] == "" || hashOf(got[i][1:]) != it.Hash:
			f.Outcome = NotHere
		default:
			f.Outcome = Got
			n.staged[Staged{t.Batch, it.Path}] = got[i][1:]
		}
		ev.Items = append(ev.Items, f)
	}
	n.inbox = append(n.inbox, ev)
}
