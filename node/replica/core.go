package replica

import (
	"time"

	"github.com/clsync/clsync/signature"
)

// Config is what a Core is told about its node and tree.
type Config struct {
	Self signature.Actor
	// ReceiveOnly: local changes are kept and reported, never sent.
	ReceiveOnly bool
	// Ignored tells whether a path is left out. It must be a pure function.
	Ignored func(p signature.Path, folder bool) bool
	// Delay is how long a change rests before it is looked at.
	Delay time.Duration
}

// Bounds and paces. They are about memory and fairness, not about correctness.
const (
	lookBatch  = 512       // paths in one look request
	looksOpen  = 2048      // looks asked for and not answered
	applyBatch = 8192      // paths in one apply
	fetchFiles = 1000      // files in one small fetch
	fetchBytes = 64 << 20  // and bytes
	fetchNames = 512 << 10 // and bytes of their paths: a want is one frame
	fetchOpen  = 2         // small fetches under way per peer
	largeFile  = 4 << 20   // bytes from which a file travels alone
	relayWait  = 300 * time.Millisecond
	goneWait   = 30 * time.Second      // what vanished rests at most so long,
	goneRest   = 10 * time.Millisecond // and at least so long
	goneCrowd  = 128                   // paths to be looked at, above which a folder is being gone through
	hotMax     = 2 * time.Second       // a path that keeps changing is looked at no less often
	hotCalm    = 150 * time.Millisecond
	hotHits    = 4
)

// Start is what a Core goes on from.
type Start struct {
	Seq       uint64 // the highest that may have been used
	Knowledge signature.Knowledge
	Ledger    []LedgerEntry
	Batch     uint64 // the latest that an earlier Core has asked for
}

// Counters count since the Core was made.
type Counters struct {
	// FolderVersionsMade are those by which nothing but a folder's mtime changed;
	// VersionsMade are all others.
	VersionsMade, FolderVersionsMade                  uint64
	RecordsSent, RecordsReceived, RecordsApplied      uint64
	ContentsReceived, BytesReceived                   uint64
	Looks, Applies, Echoes, EchoesSuppressed          uint64
	Conflicts, Verdicts, Fetches, CutsSent, CutsTaken uint64
}

// Core decides for one tree. It is not safe for concurrent use: one goroutine
// owns it.
type Core struct {
	cfg Config
	ix  Index

	seq       uint64
	knowledge signature.Knowledge
	ledger    map[signature.Path]LedgerEntry // applies that a crash cut short
	shaken    map[signature.Path]bool        // their folders

	peers map[signature.NodeID]*peer

	// live counts, per folder, the names directly in it that are listed as
	// something or imply something; "" is the root.
	live map[signature.Path]int

	dirty   map[signature.Path]time.Time // to be looked at, not before
	looking map[signature.Path]bool      // asked for, not answered
	gone    map[signature.Path]time.Time // seen absent; rests in case a rename explains it
	hot     map[signature.Path]heat
	moving  map[signature.Path]time.Time // since when no look finds it at rest
	scans   []signature.Path
	scanned int // scans under way
	gen     uint64
	touched map[signature.Path]uint64 // gen of the last apply, while looks are out

	pending   map[signature.Path]*pend // what is shown first is not held
	retry     map[signature.Path]retryState
	applying  map[signature.Path]bool
	staged    map[signature.Path]stagedContent
	batchUse  map[uint64]int // staged contents of a batch still needed
	fetching  map[signature.Path]signature.Hash
	fetchHash map[signature.Hash]signature.Path
	fetches   map[uint64]*fetch
	nextBatch uint64
	notHere   map[signature.Path]map[signature.NodeID]refusedContent
	noLocal   map[signature.Path]bool                    // a copy on this disk was promised and not there
	wanted    map[signature.Hash]map[signature.Path]bool // pending paths that show another content

	linked    map[signature.Dot]map[signature.Path]bool // paths whose first version names that group
	conflicts map[signature.Path]*conflict
	local     map[signature.Path]bool // receive-only: changed here
	lacking   map[signature.Path]bool // held, and the disk does not keep all of its attributes

	headsDue bool
	count    Counters
}

// A refusedContent is one that a peer has said it does not have: another content of
// the same path may be asked of it at once.
type refusedContent struct {
	hash  signature.Hash
	until time.Time
	tries int
}

type heat struct {
	last  time.Time // when it was minted
	delay time.Duration
	hits  int // times it was to be looked at since
}

type retryState struct {
	why   string
	since time.Time
	tries int
	at    time.Time
	err   error
	kind  Outcome
	look  bool // it was a look that failed, not an apply
}

type stagedContent struct {
	Staged
	hash signature.Hash
}

// New makes a Core over what ix holds. It reads ix once.
func New(cfg Config, ix Index, s Start) *Core {
	if cfg.Ignored == nil {
		cfg.Ignored = func(signature.Path, bool) bool { return false }
	}
	c := &Core{
		cfg: cfg, ix: ix, seq: s.Seq, knowledge: s.Knowledge.Clone(), nextBatch: s.Batch,
		ledger:    map[signature.Path]LedgerEntry{},
		shaken:    map[signature.Path]bool{},
		peers:     map[signature.NodeID]*peer{},
		live:      map[signature.Path]int{},
		dirty:     map[signature.Path]time.Time{},
		looking:   map[signature.Path]bool{},
		gone:      map[signature.Path]time.Time{},
		hot:       map[signature.Path]heat{},
		moving:    map[signature.Path]time.Time{},
		touched:   map[signature.Path]uint64{},
		pending:   map[signature.Path]*pend{},
		retry:     map[signature.Path]retryState{},
		applying:  map[signature.Path]bool{},
		staged:    map[signature.Path]stagedContent{},
		batchUse:  map[uint64]int{},
		fetching:  map[signature.Path]signature.Hash{},
		fetchHash: map[signature.Hash]signature.Path{},
		fetches:   map[uint64]*fetch{},
		notHere:   map[signature.Path]map[signature.NodeID]refusedContent{},
		noLocal:   map[signature.Path]bool{},
		wanted:    map[signature.Hash]map[signature.Path]bool{},
		linked:    map[signature.Dot]map[signature.Path]bool{},
		conflicts: map[signature.Path]*conflict{},
		local:     map[signature.Path]bool{},
		lacking:   map[signature.Path]bool{},
	}
	for _, e := range s.Ledger {
		c.ledger[e.Path] = e
		c.dirty[e.Path] = time.Time{}
		if parent, ok := e.Path.Parent(); ok {
			c.dirty[parent], c.shaken[parent] = time.Time{}, true
		}
	}
	var paths []signature.Path
	c.ix.Ascend("", func(r signature.Record) bool {
		if listedAlive(r) {
			c.liveUp(r.Path)
		}
		c.regroup(signature.Record{}, r)
		if r.Held.Form == signature.Local || lacks(r) || len(r.Listed) != 1 || r.Held.Version.Dot != r.Listed[0].Dot || r.Held.Form != signature.Plain {
			paths = append(paths, r.Path)
		}
		return true
	})
	for _, p := range paths {
		c.review(p)
	}
	return c
}

// Seq is the highest seq that this actor has used.
func (c *Core) Seq() uint64 { return c.seq }

// Knowledge is what was taken in. The caller must not change it.
func (c *Core) Knowledge() signature.Knowledge { return c.knowledge }

// Step takes in one event and says what shall be done.
func (c *Core) Step(now time.Time, ev Event) Effects {
	var fx Effects
	switch ev := ev.(type) {
	case Hinted:
		c.hinted(now, ev)
	case Scanned:
		c.scannedFolder(now, ev)
	case ScanDone:
		c.scanned--
	case Looked:
		c.looked(now, ev, &fx)
	case PeerUp:
		c.peers[ev.ID] = &peer{known: ev.Known.Clone(), landed: ev.Landed.Clone(), receiveOnly: ev.ReceiveOnly}
		c.forgiveNotHere(ev.ID)
	case PeerDown:
		delete(c.peers, ev.ID)
	case HeadIn:
		c.headIn(ev)
	case CutIn:
		c.cutIn(ev, &fx)
	case Acked:
		if p := c.peers[ev.ID]; p != nil {
			p.acked(ev.OK)
		}
	case Fetched:
		c.fetched(now, ev)
	case Applied:
		c.appliedAll(now, ev, &fx)
	case Stored:
		c.stored(now, ev)
	case Rules:
		c.cfg.Delay = ev.Delay
		c.rulesChanged()
	case Tick:
	}
	c.advance(now, &fx)
	return fx
}

// advance asks for whatever can be done now.
func (c *Core) advance(now time.Time, fx *Effects) {
	wake := wakeup{}
	c.settleConflicts(now, fx, &wake)
	c.planApply(now, fx, &wake)
	c.planFetch(now, fx, &wake)
	c.planLooks(now, fx, &wake)
	c.planCuts(now, fx, &wake)
	if c.scanned == 0 && len(c.scans) > 0 {
		fx.Scans = append(fx.Scans, c.scans[0])
		c.scans = c.scans[1:]
		c.scanned++
	}
	if c.headsDue {
		fx.Heads, c.headsDue = true, false
	}
	fx.Release = append(fx.Release, c.releasable()...)
	fx.Wake = wake.at
}

// A wakeup collects the earliest moment at which time alone changes something.
type wakeup struct{ at time.Time }

func (w *wakeup) by(t time.Time) {
	if w.at.IsZero() || t.Before(w.at) {
		w.at = t
	}
}

// get reads a record; one that is not there is empty.
func (c *Core) get(p signature.Path) signature.Record {
	r, _ := c.ix.Get(p)
	r.Path = p
	return r
}

// put writes a record and keeps what is derived from it.
func (c *Core) put(r signature.Record) {
	old := c.get(r.Path)
	was, is := listedAlive(old), listedAlive(r)
	c.ix.Put(r)
	c.regroup(old, r)
	if old.Shown.Hash != r.Shown.Hash || old.Held.Form != r.Held.Form {
		c.sourceMoved(old.Shown.Hash)
		c.sourceMoved(r.Shown.Hash)
	}
	switch {
	case c.live[r.Path] > 0: // what is beneath makes it count in any case
	case !was && is:
		c.liveUp(r.Path)
	case was && !is:
		c.liveDown(r.Path)
	}
	c.review(r.Path)
}

func listedAlive(r signature.Record) bool {
	for _, v := range r.Listed {
		if v.Sig.Exists() {
			return true
		}
	}
	return false
}

// liveUp counts a name that came alive. A folder that comes alive by it makes its
// own name count, up to the root.
func (c *Core) liveUp(p signature.Path) {
	for {
		parent, ok := p.Parent()
		c.live[parent]++
		if !ok || c.live[parent] > 1 {
			return
		}
		// The folder is implied from here on.
		if r := c.get(parent); listedAlive(r) {
			c.review(parent)
			return
		}
		c.review(parent)
		p = parent
	}
}

func (c *Core) liveDown(p signature.Path) {
	for {
		parent, ok := p.Parent()
		c.live[parent]--
		if c.live[parent] > 0 {
			return
		}
		delete(c.live, parent)
		if !ok {
			return
		}
		c.review(parent)
		if r := c.get(parent); listedAlive(r) {
			return
		}
		p = parent
	}
}
