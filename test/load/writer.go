package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// slots is how many paths a writer goes round.
const slots = 60

// A Writer changes paths of its own, beneath Root/Dir, in every way there is.
type Writer struct {
	Node    string
	Root    string // the tree
	Dir     string // the writer's own folder in it
	Rate    int    // operations a second
	Seed    uint64
	History *History

	rnd   *rand.Rand
	state map[string]state // what the writer left, by path in the tree
	n     int              // makes every content unique
}

type kind int

const (
	nothing kind = iota
	file
	folder
	symlink
)

// A state is what the writer left at a path.
type state struct {
	kind    kind
	content []byte
	mode    os.FileMode
	target  string
}

// Run writes for that long, or until the context ends. It may be called again and
// goes on with what it left.
func (w *Writer) Run(ctx context.Context, during time.Duration) error {
	if w.rnd == nil {
		w.rnd = rand.New(rand.NewPCG(w.Seed, 1))
		w.state = map[string]state{}
		if err := os.MkdirAll(filepath.Join(w.Root, w.Dir), 0o755); err != nil {
			return err
		}
		w.History.changed(1)
	}
	tick := time.NewTicker(time.Second / time.Duration(w.Rate))
	defer tick.Stop()
	end := time.NewTimer(during)
	defer end.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-end.C:
			return nil
		case <-tick.C:
			if err := w.Step(); err != nil {
				return fmt.Errorf("writer %s: %w", w.Node, err)
			}
		}
	}
}

// Step makes one operation.
func (w *Writer) Step() error {
	p := w.slot()
	s := w.state[p]
	if s.kind == nothing {
		return w.create(p)
	}
	switch op := w.rnd.IntN(10); {
	case op < 3 && s.kind == file:
		return w.overwrite(p, s)
	case op < 5 && s.kind == file:
		return w.append(p, s)
	case op == 5:
		return w.rename(p, s)
	case op == 6:
		return w.remove(p, s)
	case op == 7 && s.kind == file:
		return w.chmod(p, s)
	default:
		return w.flip(p, s)
	}
}

func (w *Writer) slot() string {
	return fmt.Sprintf("%s/s%02d", w.Dir, w.rnd.IntN(slots))
}

func (w *Writer) abs(p string) string { return w.Root + "/" + p }

// content is unique, and now and then large enough to take a while.
func (w *Writer) content() []byte {
	w.n++
	size := 10 + w.rnd.IntN(2000)
	if w.n%50 == 0 {
		size = 200 << 10
	}
	b := fmt.Appendf(nil, "%s %s %d %d\n", w.Node, w.Dir, w.Seed, w.n)
	for len(b) < size {
		b = fmt.Appendf(b, "%x\n", w.rnd.Uint64())
	}
	return b
}

// note records that a path now has that content, nil for none, instead of what it had.
func (w *Writer) note(p string, content []byte, before state) {
	wr := Write{Node: w.Node, Path: p}
	if content != nil {
		wr.Sum = SumOf(content)
	}
	if before.content != nil {
		wr.Replaces = []Sum{SumOf(before.content)}
	}
	w.History.Add(wr)
}

func (w *Writer) create(p string) error {
	b := w.content()
	if err := os.WriteFile(w.abs(p), b, 0o644); err != nil {
		return err
	}
	w.note(p, b, state{})
	w.History.changed(1)
	w.state[p] = state{kind: file, content: b, mode: 0o644}
	return nil
}

// overwrite does so in place half of the time, and by a rename over it otherwise.
func (w *Writer) overwrite(p string, s state) error {
	b := w.content()
	if w.n%2 == 0 {
		if err := os.WriteFile(w.abs(p), b, 0o644); err != nil {
			return err
		}
		w.History.changed(1)
	} else {
		tmp := w.abs(p) + ".new"
		if err := os.WriteFile(tmp, b, s.mode); err != nil {
			return err
		}
		if err := os.Chmod(tmp, s.mode); err != nil {
			return err
		}
		if err := os.Rename(tmp, w.abs(p)); err != nil {
			return err
		}
		w.History.changed(4) // the new name may be seen before it goes
	}
	w.note(p, b, s)
	s.content = b
	w.state[p] = s
	return nil
}

func (w *Writer) append(p string, s state) error {
	f, err := os.OpenFile(w.abs(p), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	more := w.content()
	if _, err := f.Write(more); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	b := append(append([]byte(nil), s.content...), more...)
	w.note(p, b, s)
	w.History.changed(1)
	s.content = b
	w.state[p] = s
	return nil
}

func (w *Writer) rename(p string, s state) error {
	to := w.slot()
	if to == p || w.state[to].kind != nothing {
		return nil
	}
	if err := os.Rename(w.abs(p), w.abs(to)); err != nil {
		return err
	}
	w.History.changed(2 * paths(s))
	w.state[to] = s
	delete(w.state, p)
	return nil
}

func (w *Writer) remove(p string, s state) error {
	if err := w.clear(p, s); err != nil {
		return err
	}
	w.note(p, nil, s)
	delete(w.state, p)
	return nil
}

func (w *Writer) clear(p string, s state) error {
	w.History.changed(paths(s))
	if s.kind == folder {
		if err := os.Remove(w.abs(p) + "/in"); err != nil {
			return err
		}
	}
	return os.Remove(w.abs(p))
}

func (w *Writer) chmod(p string, s state) error {
	s.mode = []os.FileMode{0o600, 0o640, 0o644, 0o755}[w.rnd.IntN(4)]
	if err := os.Chmod(w.abs(p), s.mode); err != nil {
		return err
	}
	w.History.changed(1)
	w.state[p] = s
	return nil
}

// flip makes something of another type of what stands there.
func (w *Writer) flip(p string, s state) error {
	if err := w.clear(p, s); err != nil {
		return err
	}
	w.note(p, nil, s)
	delete(w.state, p)
	switch (int(s.kind) + 1 + w.rnd.IntN(2)) % 3 { // one of the other two
	case int(file) % 3:
		return w.create(p)
	case int(folder) % 3:
		b := w.content()
		if err := os.Mkdir(w.abs(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(w.abs(p)+"/in", b, 0o644); err != nil {
			return err
		}
		w.note(p+"/in", b, state{})
		w.state[p] = state{kind: folder, content: b}
		w.History.changed(2)
		return nil
	default:
		target := fmt.Sprintf("target-%d", w.n)
		if err := os.Symlink(target, w.abs(p)); err != nil {
			return err
		}
		w.n++
		w.state[p] = state{kind: symlink, target: target}
		w.History.changed(1)
		return nil
	}
}

// paths is how many paths a state is made of.
func paths(s state) int {
	if s.kind == folder {
		return 2
	}
	return 1
}
