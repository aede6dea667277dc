package disk

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/wire"
)

const (
	metaName = "meta.json"
	maxMeta  = 1 << 20
	maxNote  = 4096
)

// A Note says what a kept object was, for the people who will look at it.
type Note struct {
	Version string // the dot, as text; empty for a change that nobody had seen
	Stamp   int64  // of the version, nanoseconds since 1970
	Why     string
	Node    string // whose version it is; this node's name if empty
	When    int64  // when it was kept, nanoseconds since 1970; now if zero
}

// A Conflict is one entry of the conflict store.
type Conflict struct {
	ID   string // case and entry: "<case>/<entry>"
	Case string
	Path signature.Path // where it stood; empty if its description was lost
	Sig  signature.Signature
	Note Note
	File string // the kept object itself, with all its metadata
}

// meta is the description beside the object. The facts are there for people; what
// is read back is Signature, which has all of them.
type meta struct {
	Path      []byte // as bytes: a name need not be text
	Name      string // the same, for people
	Type      string
	Mode      string `json:",omitempty"`
	UID, GID  uint32
	Size      int64 `json:",omitempty"`
	MTime     time.Time
	Hash      string `json:",omitempty"`
	Target    string `json:",omitempty"`
	Version   string `json:",omitempty"`
	Stamp     int64  `json:",omitempty"`
	Why       string
	Node      string
	When      time.Time
	Signature string
}

// entry is a folder of the store in the making.
type entry struct {
	id, kase, name string
	dir            *os.File
}

func (t *Tree) newEntry(kase string, p signature.Path, sig signature.Signature, note Note) (*entry, error) {
	if err := checkName(kase); err != nil {
		return nil, err
	}
	if note.When == 0 {
		note.When = time.Now().UnixNano()
	}
	if note.Node == "" {
		note.Node = t.cfg.Node
	}
	top, err := makeFolder(t.dirs[conflicts], kase)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	e := &entry{kase: kase, name: randomName()}
	e.id = kase + "/" + e.name
	if e.dir, err = makeFolder(top, e.name); err != nil {
		return nil, err
	}
	if err := e.writeMeta(p, sig, note); err != nil {
		return nil, errors.Join(err, e.dir.Close(), e.dropEmpty(t))
	}
	return e, nil
}

func (e *entry) writeMeta(p signature.Path, sig signature.Signature, note Note) error {
	w := wire.NewWriter()
	signature.WriteSignature(w, sig)
	m := meta{
		Path: []byte(p), Name: p.Quote(), Type: sig.Type.String(), UID: sig.UID, GID: sig.GID, Size: sig.Size,
		MTime: time.Unix(0, sig.MTime).UTC(), Version: note.Version, Stamp: note.Stamp, Why: note.Why, Node: note.Node,
		When: time.Unix(0, note.When).UTC(), Signature: base64.StdEncoding.EncodeToString(w.Frame()),
	}
	if sig.Type != signature.Symlink {
		m.Mode = fmt.Sprintf("%04o", sig.Mode)
	} else {
		m.Target = signature.Quote(sig.Target)
	}
	if sig.Type == signature.File {
		m.Hash = sig.Hash.String()
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	f, err := create(e.dir, metaName)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Close())
}

// readMeta fills in what the description says. One that is missing or cut off
// leaves c without a path: the object is worth more than its description.
func readMeta(dir *os.File, c *Conflict) error {
	fd, err := signature.Openat2(dir, metaName, unix.O_RDONLY)
	if signature.IsAbsent(err) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: metaName, Err: err}
	}
	f := os.NewFile(uintptr(fd), metaName)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMeta))
	if err != nil {
		return err
	}
	var m meta
	if json.Unmarshal(b, &m) != nil {
		return nil
	}
	raw, err := base64.StdEncoding.DecodeString(m.Signature)
	if err != nil || wire.Check(raw) != nil {
		return nil
	}
	rd := wire.NewReader(raw)
	sig := signature.ReadSignature(rd)
	if rd.Err() != nil {
		return nil
	}
	c.Path, c.Sig = signature.Path(m.Path), sig
	c.Note = Note{Version: m.Version, Stamp: m.Stamp, Why: m.Why, Node: m.Node, When: m.When.UnixNano()}
	return nil
}

// sync makes the entry durable, with the folders above it.
func (e *entry) sync(t *Tree) error {
	fd, err := signature.Openat2(e.dir, metaName, unix.O_RDONLY)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), metaName)
	defer f.Close()
	top, err := openFolder(t.dirs[conflicts], e.kase)
	if err != nil {
		return err
	}
	defer top.Close()
	return errors.Join(f.Sync(), e.dir.Sync(), top.Sync(), t.dirs[conflicts].Sync())
}

// dropEmpty removes an entry that holds no object; one that does stays.
func (e *entry) dropEmpty(t *Tree) error {
	dir, err := t.openEntry(e.id)
	if err != nil {
		return err
	}
	pin, err := pinAt(dir, content)
	dir.Close()
	if err == nil {
		return pin.Close()
	}
	return t.RemoveConflict(e.id)
}

func (t *Tree) openEntry(id string) (*os.File, error) {
	if _, _, err := splitID(id); err != nil {
		return nil, err
	}
	dir, err := openFolder(t.dirs[conflicts], id)
	if signature.IsAbsent(err) {
		return nil, ErrNoConflict
	}
	return dir, err
}

func splitID(id string) (kase, name string, err error) {
	kase, name, _ = strings.Cut(id, "/")
	return kase, name, errors.Join(checkName(kase), checkName(name))
}
