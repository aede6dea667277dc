package index

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/bbolt"
)

// compactFrom is the size below which nobody minds what is free.
const compactFrom = 16 << 20

// wasteful tells whether so much of the file is free that a copy pays: bbolt never
// shortens its file, and writes the whole list of free pages with each commit.
func (s survey) wasteful() bool {
	return (s.pages-s.used)*3 > s.pages && s.size > compactFrom
}

// compact copies the index at path into a new file and puts that in its place. A
// proof that holds for the old file is renewed for the new one before it has the
// name, so that a crash leaves one or the other, both proven.
func compact(dir, path string, f *os.File, sound survey, proof Proof) (err error) {
	fresh := filepath.Join(dir, newName)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("compact: %w", err), os.RemoveAll(fresh))
		}
	}()
	now, err := proof.encode(f)
	if err != nil {
		return err
	}
	proven := now != nil && string(now) == string(sound.fields[fieldProof])
	from, fromFile, err := openBolt(path, bbolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	to, toFile, err := openBolt(fresh, bbolt.Options{NoSync: true})
	if err != nil {
		return errors.Join(err, from.Close())
	}
	torn, err := guard(func() error {
		if err := bbolt.Compact(to, from, 8<<20); err != nil {
			return err
		}
		if proven {
			if err := renew(to, toFile, sound, proof); err != nil {
				return err
			}
		}
		return to.Sync()
	})
	err = errors.Join(err, shut(from, fromFile, torn), shut(to, toFile, torn))
	if err != nil {
		return err
	}
	if err := verifyPath(fresh); err != nil {
		return err
	}
	return replace(dir, fresh, path)
}

func verifyPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = verify(f)
	return err
}

// renew writes the proof for the file that db is in.
func renew(db *bbolt.DB, file *os.File, sound survey, proof Proof) error {
	now, err := proof.encode(file)
	if err != nil || now == nil {
		return err
	}
	t, ok := decodeTally(sound.fields[fieldSum])
	if !ok {
		return fmt.Errorf("%w: sum", ErrDamaged)
	}
	old, renewed := seal(fieldProof, sound.fields[fieldProof]), seal(fieldProof, now)
	t.sum += weigh(metas, renewed) - weigh(metas, old)
	return db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucketNames[metas]))
		if err := b.Put([]byte(fieldProof), renewed); err != nil {
			return err
		}
		return b.Put([]byte(fieldSum), seal(fieldSum, t.encode()))
	})
}

// setAside renames a damaged file, and removes the oldest of those set aside before:
// they are for whoever wants to know what happened, and must not fill the disk.
func setAside(dir, path string) (string, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var kept []int
	for _, e := range names {
		if n, err := strconv.Atoi(strings.TrimPrefix(e.Name(), asideName)); err == nil &&
			e.Name() == asideName+strconv.Itoa(n) {
			kept = append(kept, n)
		}
	}
	slices.Sort(kept)
	n := 1
	if len(kept) > 0 {
		n = kept[len(kept)-1] + 1
	}
	aside := filepath.Join(dir, asideName+strconv.Itoa(n))
	if err := replace(dir, path, aside); err != nil {
		return "", fmt.Errorf("set aside: %w", err)
	}
	for len(kept) >= keptAside {
		if err := os.Remove(filepath.Join(dir, asideName+strconv.Itoa(kept[0]))); err != nil {
			return "", fmt.Errorf("set aside: %w", err)
		}
		kept = kept[1:]
	}
	return aside, nil
}
