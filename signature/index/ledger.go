package index

import (
	"github.com/clsync/clsync/signature"
)

// A LedgerEntry says what an apply is about to make true of a path. It is durable
// before the apply begins, and cleared when what the disk shows is in the record.
// There is one per path; a later one takes its place.
type LedgerEntry struct {
	Path    signature.Path
	Target  signature.Signature // what the disk is to show
	Version signature.Version   // the version it stands for; may be none
	Form    signature.Form
}

func encodeEntry(e LedgerEntry) []byte {
	return signature.EncodeRecord(signature.Record{
		Held:  signature.Held{Version: e.Version, Form: e.Form},
		Shown: e.Target,
	})
}

func decodeEntry(p signature.Path, b []byte) (LedgerEntry, error) {
	r, err := signature.DecodeRecord(p, b)
	return LedgerEntry{Path: p, Target: r.Shown, Version: r.Held.Version, Form: r.Held.Form}, err
}
