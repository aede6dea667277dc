package disk

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/wire"
)

// manifest is the file in a run's folder that says what its entries are. It is
// written before anything else, but not synced: after a power loss an entry that
// no manifest explains is kept rather than dropped.
const (
	manifest    = "manifest"
	maxManifest = 1 << 30
)

// randomName names what nobody asks for by name.
func randomName() string {
	var b [12]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// open makes the run's folder and locks it, so that SweepGrace leaves it alone.
func (r *run) open() error {
	r.id = randomName()
	dir, err := makeFolder(r.t.dirs[grace], r.id)
	if err != nil {
		return err
	}
	r.dir = dir
	err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = r.writeManifest()
	}
	if err != nil {
		return errors.Join(err, dir.Close(), removeAll(r.t.dirs[grace], r.id))
	}
	return nil
}

func (r *run) writeManifest() error {
	w := wire.NewWriter()
	w.Array(len(r.items))
	for _, it := range r.items {
		w.Array(10)
		w.String(string(it.Path))
		signature.WriteSignature(w, it.Expect)
		signature.WriteSignature(w, it.Target)
		w.String(string(it.Content.MoveFrom))
		w.String(it.Keep)
		w.String(it.Note.Version)
		w.Int(it.Note.Stamp)
		w.String(it.Note.Why)
		w.String(it.Note.Node)
		w.Int(it.Note.When)
	}
	f, err := create(r.dir, manifest)
	if err != nil {
		return err
	}
	_, err = f.Write(w.Frame())
	return errors.Join(err, f.Close())
}

// readManifest returns nothing if the manifest was lost or cut off.
func readManifest(dir *os.File) []Apply {
	fd, err := signature.Openat2(dir, manifest, unix.O_RDONLY)
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), manifest)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil || wire.Check(b) != nil {
		return nil
	}
	rd := wire.NewReader(b)
	n := rd.Array(maxManifest)
	var as []Apply
	for range n {
		rd.Tuple(10)
		a := Apply{Path: signature.ReadPath(rd), Expect: signature.ReadSignature(rd), Target: signature.ReadSignature(rd)}
		a.Content.MoveFrom = signature.Path(rd.Bytes(signature.MaxPath))
		a.Keep = string(rd.Bytes(256))
		a.Note = Note{Version: string(rd.Bytes(maxNote)), Stamp: rd.Int(), Why: string(rd.Bytes(maxNote)), Node: string(rd.Bytes(maxNote)), When: rd.Int()}
		if rd.Err() != nil {
			return nil
		}
		as = append(as, a)
	}
	return as
}

// end removes the run's folder unless something rests in it.
func (r *run) end() error {
	for _, it := range r.items {
		if it.holds != holdsNothing {
			return nil
		}
	}
	return dropRun(r.t.dirs[grace], r.dir, r.id)
}

func dropRun(grace, dir *os.File, id string) error {
	if err := unlink(dir, manifest); err != nil {
		return fmt.Errorf("end run: %w", err)
	}
	if err := rmdir(grace, id); err != nil {
		return fmt.Errorf("end run: %w", err)
	}
	return nil
}

// sync makes the run durable. Folders were synced with their times.
func (r *run) sync() error {
	errs := r.errs
	if r.whole || r.resync {
		errs = append(errs, syncWhole(r.t.private))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("apply %d paths: %w", len(r.items), err)
	}
	return nil
}
