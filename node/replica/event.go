package replica

import (
	"time"

	"github.com/clsync/clsync/signature"
)

// An Index is what is remembered of the paths of a tree. Only Core writes to it.
// Its methods have no errors: a store that fails says so to its owner, who stops.
type Index interface {
	Get(p signature.Path) (signature.Record, bool)
	// Put replaces a record; an empty one is removed.
	Put(r signature.Record)
	// Ascend yields the records beneath dir, all of them for "", in byte order of the path.
	Ascend(dir signature.Path, yield func(signature.Record) bool)
	// Children yields the records directly beneath dir.
	Children(dir signature.Path, yield func(signature.Record) bool)
	// Since yields every record that lists a version not covered by k.
	Since(k signature.Knowledge, yield func(signature.Record) bool)
	// ByHash yields the paths whose disk shows a file with that content.
	ByHash(h signature.Hash, yield func(signature.Path) bool)
	// ByDot yields the path that lists the version with that dot, if any does.
	ByDot(d signature.Dot, yield func(signature.Path) bool)
	// ByInode yields the paths whose disk shows that inode; folders are left out.
	ByInode(dev, ino uint64, yield func(signature.Path) bool)
}

// An Event is what happened outside.
type Event interface{ event() }

type (
	// Hinted: these paths may have changed. Deep: also all beneath.
	Hinted struct {
		Paths []signature.Path
		Deep  bool
	}
	// Scanned: what stands in one folder, all of it. Folder is "" for the root.
	Scanned struct {
		Folder  signature.Path
		Entries []Entry
	}
	// ScanDone ends the scan that an Effects.Scan asked for.
	ScanDone struct{ Path signature.Path }
	// Looked answers Effects.Looks.
	Looked struct{ Looks []Seen }
	// PeerUp: a session with a peer began. Its cuts in flight are forgotten.
	PeerUp struct {
		ID            signature.NodeID
		Known, Landed signature.Knowledge
		ReceiveOnly   bool // it authors nothing, so it decides nothing
	}
	// PeerDown: the session ended.
	PeerDown struct{ ID signature.NodeID }
	// HeadIn: what a peer knows and has landed now.
	HeadIn struct {
		ID            signature.NodeID
		Known, Landed signature.Knowledge
	}
	// CutIn: a whole cut arrived.
	CutIn struct {
		From signature.NodeID
		Cut  Cut
	}
	// Acked: the peer has taken in our cut, or it could not be sent.
	Acked struct {
		ID signature.NodeID
		OK bool
	}
	// Fetched answers an Effects.Fetch.
	Fetched struct {
		Batch uint64
		Items []FetchedItem
	}
	// Applied answers Effects.Apply.
	Applied struct{ Results []Result }
	// Stored answers an Effects.Store.
	Stored struct {
		Task StoreTask
		OK   bool
	}
	// Rules: what is ignored, or how long changes rest, has changed.
	Rules struct{ Delay time.Duration }
	// Tick: time passed.
	Tick struct{}
)

func (Hinted) event()   {}
func (Scanned) event()  {}
func (ScanDone) event() {}
func (Looked) event()   {}
func (PeerUp) event()   {}
func (PeerDown) event() {}
func (HeadIn) event()   {}
func (CutIn) event()    {}
func (Acked) event()    {}
func (Fetched) event()  {}
func (Applied) event()  {}
func (Stored) event()   {}
func (Rules) event()    {}
func (Tick) event()     {}

// An Entry is one name in a folder, as a scan found it.
type Entry struct {
	Path signature.Path
	Mark signature.StatMark
}

// A Cut is one snapshot of a node's listing and knowledge: what the other side
// lacks of it. It is taken in whole or not at all.
type Cut struct {
	Listings  []signature.Listing
	Knowledge signature.Knowledge
}

// A LookTask asks for a look, given what was seen last.
type LookTask struct {
	Path  signature.Path
	Shown signature.Signature
	Mark  signature.StatMark
	// Final: do not wait for other looks to explain an absence.
	Final bool
	// Moving is for how long looks here have failed because the path moved; from
	// Restless on a moment of it may be shown instead.
	Moving time.Duration
	// gen orders the look against applies: one that an apply overtook is void.
	gen uint64
}

// Seen is a look and the task that asked for it.
type Seen struct {
	Task LookTask
	Look signature.Look
	// Later: not looked at yet, since a big file must rest first, or one that moves.
	Later time.Duration
}

// A Source says where the content of an apply comes from.
type Source uint8

const (
	NoContent Source = iota // facts alone, or nothing that has a content
	FromStaging
	FromMove // rename Name, whose own delete is in the same batch
	FromCopy // clone or copy Name
	FromLink // a further link of Name
)

// An ApplyTask is one path to be changed on the disk.
type ApplyTask struct {
	Path    signature.Path
	Version signature.Version
	Form    signature.Form
	Target  signature.Signature // bare: what the disk shall show
	Expect  signature.Signature // what it should show now
	Mark    signature.StatMark
	Source  Source
	Name    signature.Path // of FromMove, FromCopy, FromLink
	// From and FromSig: what Name shows now. From is zero where an earlier task of
	// the batch makes it.
	From    signature.StatMark
	FromSig signature.Signature
	Staged  Staged
	// Keep: what is displaced is the content of a listed version, this one, and
	// goes into the conflict store.
	Keep *signature.Version
}

// Staged names a verified file in staging.
type Staged struct {
	Batch uint64
	Path  signature.Path // beneath the batch's folder
}

// An Outcome is what became of an apply.
type Outcome uint8

const (
	Done     Outcome = iota
	Moved            // the disk did not show what was expected: a local change nobody had seen
	Busy             // somebody writes or maps the file
	NoParent         // its folder is not there
	NotEmpty         // the folder holds something
	NoSource         // the content is not where it was
	Blocked          // anything else: Err says what
)

var outcomeNames = [...]string{"done", "moved", "busy", "no parent folder", "folder not empty", "content gone", "blocked"}

func (o Outcome) String() string { return outcomeNames[o] }

// A Result is what became of one ApplyTask. Look was taken afterwards.
type Result struct {
	Task    ApplyTask
	Outcome Outcome
	Look    signature.Look
	Kept    bool // what was displaced stands in the conflict store
	Unkept  bool // the disk does not keep some of the attributes
	Err     error
}

// A Lane is how contents travel.
type Lane uint8

const (
	Small Lane = iota // many files, whole
	Large             // one file, as a delta where there is a basis
)

// A FetchTask asks one peer for contents.
type FetchTask struct {
	Batch uint64
	From  signature.NodeID
	Lane  Lane
	Items []FetchItem
}

// A FetchItem is one wanted content.
type FetchItem struct {
	Path  signature.Path
	Dot   signature.Dot
	Hash  signature.Hash
	Size  int64
	Basis bool // the live file may serve as the basis of a delta
}

// FetchOutcome is what became of a wanted content.
type FetchOutcome uint8

const (
	Got     FetchOutcome = iota // staged and verified
	NotHere                     // the peer does not have it, or it moved
	Failed                      // the peer or the network failed: try again
)

// A FetchedItem answers a FetchItem.
type FetchedItem struct {
	FetchItem
	Outcome FetchOutcome
	Err     error // of Failed: why
}

// A StoreTask asks for a loser's content to be put into the conflict store: what
// was fetched for it, or a symlink, which its version describes. Of a file that is
// not staged it asks whether the store has its content already.
type StoreTask struct {
	Path    signature.Path
	Version signature.Version
	Staged  Staged
}

// Asks tells whether the task is a question.
func (t StoreTask) Asks() bool {
	return t.Version.Sig.Type == signature.File && t.Staged == Staged{}
}

// A LedgerEntry is written before an apply makes it true.
type LedgerEntry struct {
	Path    signature.Path
	Version signature.Version
	Form    signature.Form
	Target  signature.Signature
}

// A CutOut is a cut for one peer. The owner answers with Acked.
type CutOut struct {
	To  signature.NodeID
	Cut Cut
}

// A NoticeKind is what a Notice is about.
type NoticeKind uint8

const (
	NoticeConflict NoticeKind = iota // several versions of a path are listed
	NoticeVerdict                    // this node chose one
	NoticeAlarm                      // a promise is broken: a clone, a rollback or a bug
	NoticeBlocked                    // a path cannot land
)

// A Notice is something people should hear of.
type Notice struct {
	Kind NoticeKind
	Path signature.Path
	Peer signature.NodeID
	Text string
}

// Effects is what a step asks for. The owner carries it out from top to bottom;
// if Save is set, the index, Ledger, Cleared, Core.Seq and Core.Knowledge are
// durable before anything below it begins.
type Effects struct {
	Ledger  []LedgerEntry
	Cleared []signature.Path
	Save    bool

	Notices []Notice
	Cuts    []CutOut
	Acks    []signature.NodeID // cuts taken in, to be told so
	Heads   bool               // tell all peers what is known and landed
	Looks   []LookTask
	Scans   []signature.Path
	Store   []StoreTask
	Apply   []ApplyTask // one batch, in this order
	Fetch   []FetchTask
	Release []uint64 // staging batches that nobody needs any more
	Wake    time.Time
}
