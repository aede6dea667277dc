package index

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// ErrLocked is returned by Open where another process has the index open.
var ErrLocked = errors.New("another daemon uses it")

// The files of an index in its folder. What is not finished has another name.
const (
	fileName   = "index.db"
	newName    = "index.new"
	lockName   = "index.lock"
	asideName  = "index.damaged-" // and a number
	keptAside  = 3
	format     = "1"
	lockWait   = time.Second
	lockPoll   = 20 * time.Millisecond
	privateDir = 0o700
	private    = 0o600
)

// State says what Open came upon.
type State uint8

const (
	Fresh     State = iota + 1 // there was none
	Continued                  // all of it is sound
	Damaged                    // it was set aside, and a fresh one begun
)

func (s State) String() string {
	switch s {
	case Fresh:
		return "fresh"
	case Continued:
		return "continued"
	case Damaged:
		return "damaged"
	}
	return "invalid"
}

// Found is what Open came upon.
type Found struct {
	State State
	// Continuous: boot, mount, and the file's inode and birth time are those last
	// written. Only then may the actor of Meta go on.
	Continuous bool
	Clean      bool            // the last run that wrote has closed it in order
	Actor      signature.Actor // the one it came with
	Reason     error           // Damaged: why
	Aside      string          // Damaged: where the file is now; the latest three are kept
	Compacted  bool
	// Uncompacted: why it stays larger than it must be, otherwise nil.
	Uncompacted error
}

// Open opens the index in dir, or begins one. It waits a second for another process
// that has it open, then returns ErrLocked. An index that a later program wrote is an
// error and stays as it is.
func Open(dir string, proof Proof) (*Store, error) {
	s, err := open(dir, proof)
	if err != nil {
		return nil, fmt.Errorf("open index %s: %w", dir, err)
	}
	return s, nil
}

func open(dir string, proof Proof) (_ *Store, err error) {
	if err := os.MkdirAll(dir, privateDir); err != nil {
		return nil, err
	}
	lock, err := acquire(filepath.Join(dir, lockName))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	path := filepath.Join(dir, fileName)
	var found Found
	for range 2 {
		found.State, err = examine(dir, path, proof, &found)
		if err == nil {
			var s *Store
			if s, err = start(path, proof); err == nil {
				s.dir, s.lock = dir, lock
				s.settle(found)
				return s, nil
			}
		}
		if !isDamage(err) {
			return nil, err
		}
		aside, aerr := setAside(dir, path)
		if aerr != nil {
			return nil, errors.Join(err, aerr)
		}
		found = Found{Reason: err, Aside: aside}
	}
	return nil, err
}

func isDamage(err error) bool { return errors.Is(err, ErrDamaged) || errors.Is(err, unix.EIO) }

// acquire takes a lock of our own rather than bbolt's alone: the file is read, set
// aside and replaced under it, and no panic can leave it held.
func acquire(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, private)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(lockPoll) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case err == unix.EINTR:
		case err != unix.EWOULDBLOCK:
			f.Close()
			return nil, &os.PathError{Op: "lock", Path: path, Err: err}
		case time.Now().After(end):
			f.Close()
			return nil, ErrLocked
		}
	}
}

// examine leaves a sound file at path and says how it came there.
func examine(dir, path string, proof Proof, found *Found) (State, error) {
	// What an earlier run did not finish.
	if err := os.Remove(filepath.Join(dir, newName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := create(dir, path); err != nil {
			return 0, fmt.Errorf("begin: %w", err)
		}
		if found.Reason != nil {
			return Damaged, nil
		}
		return Fresh, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sound, err := verify(f)
	if err != nil {
		return 0, err
	}
	if got := string(sound.fields[fieldFormat]); got != format {
		return 0, fmt.Errorf("format %q: this program reads %q", got, format)
	}
	if sound.wasteful() {
		err := compact(dir, path, f, sound, proof)
		found.Compacted, found.Uncompacted = err == nil, err
	}
	return Continued, nil
}

// create makes an empty index under another name first: a file at path is whole.
func create(dir, path string) error {
	fresh := filepath.Join(dir, newName)
	db, err := bbolt.Open(fresh, private, &bbolt.Options{Timeout: lockWait})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range bucketNames {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		b := tx.Bucket([]byte(bucketNames[metas]))
		sealed := seal(fieldFormat, []byte(format))
		if err := b.Put([]byte(fieldFormat), sealed); err != nil {
			return err
		}
		t := tally{sum: weigh(metas, sealed)}
		return b.Put([]byte(fieldSum), seal(fieldSum, t.encode()))
	})
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return replace(dir, fresh, path)
}

// replace renames and makes that durable.
func replace(dir, from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// start opens a sound file with bbolt, keeping its handle: if bbolt panics all the
// same, closing the handle frees its lock.
func start(path string, proof Proof) (*Store, error) {
	s := &Store{recent: map[signature.Path]recent{}}
	db, file, err := openBolt(path, bbolt.Options{})
	if err != nil {
		return nil, err
	}
	s.layers, s.file = newLayers(db), file
	s.proof, err = proof.encode(file)
	if err == nil {
		s.readFields()
		err = s.err
	}
	if err != nil {
		s.release()
		return nil, errors.Join(err, shut(db, file, s.torn))
	}
	return s, nil
}

func openBolt(path string, o bbolt.Options) (db *bbolt.DB, file *os.File, err error) {
	o.Timeout = lockWait
	o.FreelistType = bbolt.FreelistMapType
	o.OpenFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
		var err error
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}
	torn, err := guard(func() (err error) {
		db, err = bbolt.Open(path, private, &o)
		return err
	})
	if torn {
		return nil, nil, errors.Join(err, file.Close())
	}
	if errors.Is(err, berrors.ErrTimeout) {
		err = ErrLocked
	}
	return db, file, err
}

// settle completes what was found by what the fields say.
func (s *Store) settle(found Found) {
	if found.State == Continued {
		found.Actor = s.meta.Actor
		last := s.fields[fieldProof]
		found.Continuous = s.proof != nil && string(last) == string(seal(fieldProof, s.proof))
		found.Clean = string(s.fields[fieldClean]) == string(seal(fieldClean, []byte{1}))
	}
	s.found = found
}
