package disk

import (
	"errors"

	"github.com/clsync/clsync/signature"
)

var (
	// ErrContent is returned where an apply needs a content and got none, or one
	// that is not what the target says.
	ErrContent = errors.New("not the content of the target")
	// ErrSource is returned where the live path that the content was to come from
	// is not as expected; the content has to come from a peer.
	ErrSource = errors.New("source has changed")
	// ErrUnexpected is returned where the disk does not show what was expected.
	ErrUnexpected = errors.New("the disk shows something else")
)

// An Apply is what one path is to become.
type Apply struct {
	Path   signature.Path
	Target signature.Signature
	Expect signature.Signature // what this disk should show now, as it was shown; Absent or zero: nothing
	Mark   signature.StatMark  // of Expect
	// Content of a file, or a name to link to. Without one, a path whose content is
	// that of Expect keeps its inode, and only its facts are set; what needs no
	// content (folders, symlinks, devices, empty files) is made.
	Content Content
	// Keep, if not empty, is the case under which what is displaced goes into the
	// conflict store, with Note.
	Keep string
	Note Note
}

// Content says where a content is. At most one of Staged, MoveFrom, CopyFrom and
// LinkTo is set.
type Content struct {
	Batch, Staged string         // a path below the batch's staging folder; its content was verified
	MoveFrom      signature.Path // a live file whose own delete is in the same apply
	CopyFrom      signature.Path // a live file with the same content; cloned or copied, then verified
	LinkTo        signature.Path // a live name with the same signature
	// Of MoveFrom and LinkTo: what that path should show now.
	Sig  signature.Signature
	Mark signature.StatMark
}

func (c Content) none() bool {
	return c.Staged == "" && c.MoveFrom == "" && c.CopyFrom == "" && c.LinkTo == ""
}

// Outcome is how an apply of one path ended.
type Outcome uint8

const (
	Blocked  Outcome = iota // anything else, Err says what: immutable, full, read-only, no attributes
	Done                    // the path is as the target says, as far as Look shows
	Moved                   // an unseen local change stood there; it stands there still, or is in Kept
	Busy                    // somebody has it open for writing; nothing was done
	NoParent                // the folder above is not there
	NotEmpty                // the folder to be removed or replaced holds something
)

var outcomeNames = [...]string{"blocked", "done", "moved", "busy", "no parent", "not empty"}

func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return "invalid"
}

// Applied is what became of an Apply.
type Applied struct {
	Path    signature.Path
	Outcome Outcome
	Look    signature.Look // taken after everything, whatever happened
	Kept    string         // the entry made in the conflict store
	Resting bool           // what was displaced rests in the grace pool: somebody may still write to it
	Err     error          // why the outcome is not Done
	Unkept  error          // attributes that the file system does not keep; Look has the others
}

// SyncMode says how an apply is made durable.
type SyncMode uint8

const (
	SyncAuto  SyncMode = iota // by the number of paths
	SyncEach                  // each file and folder; not held up by what others have written
	SyncWhole                 // the file system as a whole, before the first switch and after the last
)

// wholeFrom is the number of paths from which one syncfs costs less than an
// fsync each.
const wholeFrom = 65
