package monitor

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clsync/clsync/signature"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A reader runs a monitor and keeps all it hinted.
type reader struct {
	t    *testing.T
	m    *Monitor
	root string
	stop func()

	mu       sync.Mutex
	plain    map[signature.Path]bool
	deep     map[signature.Path]bool
	overflow bool
}

// anybody is the Self of tests that make their changes themselves.
func anybody(int) bool { return false }

func open(t *testing.T, cfg Config) *Monitor {
	t.Helper()
	if cfg.Self == nil {
		cfg.Self = anybody
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	m, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func read(t *testing.T, m *Monitor, root string) *reader {
	t.Helper()
	r := &reader{t: t, m: m, root: root}
	r.forget()
	ctx, cancel := context.WithCancel(context.Background())
	hints := make(chan []Hint)
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx, hints) }()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case batch := <-hints:
				r.take(batch)
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
				return
			}
		}
	})
	r.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(r.stop)
	return r
}

func start(t *testing.T, cfg Config) *reader {
	t.Helper()
	return read(t, open(t, cfg), cfg.Root)
}

func (r *reader) take(batch []Hint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range batch {
		if h.Deep {
			r.deep[h.Path] = true
		} else {
			r.plain[h.Path] = true
		}
		r.overflow = r.overflow || h.Overflow
	}
}

func (r *reader) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plain, r.deep, r.overflow = map[signature.Path]bool{}, map[signature.Path]bool{}, false
}

// covers tells whether a look at p was asked for.
func (r *reader) covers(p signature.Path) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.plain[p] || r.deep[p] || covered(asMarks(r.deep), p)
}

func asMarks(deeps map[signature.Path]bool) map[signature.Path]mark {
	marks := make(map[signature.Path]mark, len(deeps))
	for p := range deeps {
		marks[p] = deep
	}
	return marks
}

// uncovered lists what is in the tree, or in also, and was not hinted.
func (r *reader) uncovered(also ...signature.Path) (list []signature.Path) {
	r.mu.Lock()
	defer r.mu.Unlock()
	marks := asMarks(r.deep)
	check := func(p signature.Path) {
		if !r.plain[p] && !r.deep[p] && !covered(marks, p) {
			list = append(list, p)
		}
	}
	err := filepath.WalkDir(r.root, func(path string, _ fs.DirEntry, err error) error {
		if rel, ok := beneath(r.root, path); ok && rel != "" && err == nil {
			check(signature.Path(rel))
		}
		return err
	})
	if err != nil {
		r.t.Error(err)
	}
	for _, p := range also {
		check(p)
	}
	return list
}

func (r *reader) await(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.t.Fatalf("%s: not within 20 s; stats %+v, %d plain, deep %v", what, r.m.Stats(), len(r.plain), r.deep)
		}
		time.Sleep(time.Millisecond) // between two looks at the predicate
	}
}

func (r *reader) awaitHint(p signature.Path) {
	r.t.Helper()
	r.await(fmt.Sprintf("hint for %q", p), func() bool { return r.covers(p) })
}

func (r *reader) awaitDeep(p signature.Path) {
	r.t.Helper()
	r.await(fmt.Sprintf("deep hint for %q", p), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.deep[p] || covered(asMarks(r.deep), p)
	})
}

// fence waits until all that happened so far has been hinted.
func (r *reader) fence() {
	r.t.Helper()
	fences++
	name := fmt.Sprintf("fence%d", fences)
	put(r.t, filepath.Join(r.root, name), "")
	r.awaitHint(signature.Path(name))
}

var fences int

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

func mkdir(t *testing.T, elem ...string) string {
	t.Helper()
	path := filepath.Join(elem...)
	must(t, os.MkdirAll(path, 0o755))
	return path
}

// backends runs a test with each, on an empty root.
func backends(t *testing.T, test func(t *testing.T, cfg Config)) {
	for _, name := range []string{Fanotify, Fsnotify} {
		t.Run(name, func(t *testing.T) {
			if name == Fanotify {
				needRoot(t, "to mark file systems")
			}
			test(t, Config{Root: mkdir(t, fileSystem(t), "tree"), Backend: name})
		})
	}
}

func needRoot(t *testing.T, what string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root " + what)
	}
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	put(t, file, "")
	for _, cfg := range []Config{
		{Root: file},
		{Root: filepath.Join(t.TempDir(), "missing")},
		{Root: t.TempDir(), Backend: "dnotify"},
	} {
		if m, err := Open(cfg); err == nil {
			t.Errorf("Open(%+v) = %v", cfg, m.Close())
		}
	}
}

func TestRunAfterClose(t *testing.T) {
	m := open(t, Config{Root: t.TempDir(), Backend: Fsnotify})
	must(t, m.Close())
	if err := m.Run(t.Context(), nil); err != ErrClosed {
		t.Errorf("Run = %v", err)
	}
}

// Nothing is lost between Open and Run, between two Runs, or in a Run that ends
// while its receiver is not there.
func TestNothingLostWhileNotRunning(t *testing.T) {
	backends(t, func(t *testing.T, cfg Config) {
		m := open(t, cfg)
		put(t, filepath.Join(cfg.Root, "before"), "x")
		r := read(t, m, cfg.Root)
		r.awaitHint("before")
		r.stop()

		mkdir(t, cfg.Root, "between/a/b")
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx, make(chan []Hint)) }()
		put(t, filepath.Join(cfg.Root, "unheard"), "x")
		cancel()
		must(t, <-done)

		r = read(t, m, cfg.Root)
		r.await("everything", func() bool { return len(r.uncovered()) <= 1 && r.covers("unheard") && r.covers("between/a/b") })
	})
}

// Close ends a Run whose receiver is not there.
func TestCloseEndsRun(t *testing.T) {
	backends(t, func(t *testing.T, cfg Config) {
		m := open(t, cfg)
		done := make(chan error, 1)
		go func() { done <- m.Run(context.Background(), make(chan []Hint)) }()
		put(t, filepath.Join(cfg.Root, "f"), strings.Repeat("x", 100))
		must(t, m.Close())
		select {
		case err := <-done:
			if err != nil && err != ErrClosed {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("Run goes on")
		}
	})
}
