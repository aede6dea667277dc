package replica

import (
	"testing"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/index"
)

// What a path shows first, and in which form.
func TestTarget(t *testing.T) {
	version := func(seq uint64, s signature.Signature) signature.Version {
		return signature.Version{Dot: signature.Dot{Actor: signature.Actor{Node: signature.NodeID{1}}, Seq: seq}, Stamp: int64(seq), Sig: s}
	}
	facts := signature.Facts{Mode: 0o700, MTime: 7}
	kept := signature.Kept{Set: true, Facts: facts}
	older := signature.Kept{Set: true, Facts: signature.Facts{Mode: 0o711, MTime: 6}}
	file := signature.Signature{Type: signature.File, Size: 1, Hash: hashOf("x")}
	fileOver := file
	fileOver.Kept = kept
	folder := signature.Signature{Type: signature.Folder, Facts: facts}
	gone := signature.Signature{Type: signature.Absent}
	goneFolder := signature.Signature{Type: signature.Absent, Kept: kept}
	goneEarlier := signature.Signature{Type: signature.Absent, Kept: older}
	made := signature.Signature{Type: signature.Folder, Facts: signature.Facts{Mode: 0o755}}
	for name, tt := range map[string]struct {
		listed []signature.Version // greatest first
		child  bool                // something beneath is alive
		form   signature.Form
		seq    uint64 // of the version; 0: none
		sig    signature.Signature
	}{
		"nothing":                                  {form: signature.Nothing},
		"a file":                                   {[]signature.Version{version(1, file)}, false, signature.Plain, 1, file},
		"the greatest of two":                      {[]signature.Version{version(2, gone), version(1, file)}, false, signature.Plain, 2, gone},
		"kept facts are not shown":                 {[]signature.Version{version(2, goneFolder)}, false, signature.Plain, 2, gone},
		"an unlisted folder":                       {nil, true, signature.Implied, 0, made},
		"a folder":                                 {[]signature.Version{version(1, folder)}, true, signature.Plain, 1, folder},
		"a folder before a greater file":           {[]signature.Version{version(2, file), version(1, folder)}, true, signature.Plain, 1, folder},
		"a file beside its children":               {[]signature.Version{version(2, file)}, true, signature.Implied, 2, made},
		"a file that keeps the folder's facts":     {[]signature.Version{version(2, fileOver)}, true, signature.Implied, 2, folder},
		"a tombstone that keeps the folder's":      {[]signature.Version{version(2, goneFolder)}, true, signature.Implied, 2, folder},
		"the greatest of those that keep any":      {[]signature.Version{version(3, file), version(2, goneFolder), version(1, goneEarlier)}, true, signature.Implied, 2, folder},
		"a folder before a tombstone's kept facts": {[]signature.Version{version(2, goneEarlier), version(1, folder)}, true, signature.Plain, 1, folder},
	} {
		t.Run(name, func(t *testing.T) {
			ix := index.NewMemory()
			if len(tt.listed) > 0 {
				ix.Put(signature.Record{Path: "d", Listed: tt.listed})
			}
			if tt.child {
				ix.Put(signature.Record{Path: "d/e/f", Listed: []signature.Version{version(9, file)}})
			}
			c := New(Config{}, ix, Start{})
			got, ok := c.targetOf(c.get("d"))
			if ok != (tt.form != signature.Nothing) || got.Form != tt.form || got.Version.Dot.Seq != tt.seq || got.Sig != tt.sig {
				t.Errorf("got %v %+v", ok, got)
			}
		})
	}
}
