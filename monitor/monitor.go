// Package monitor turns kernel events into "look at this path again".
//
// A hint says that a path may have changed since Open, nothing more: not what
// happened, not in which order, not whether anything did. The kernel merges,
// reorders and drops events, so nothing may be concluded from a hint before a
// look. A hint may come for a path that does not exist, that is as it was, or
// that was renamed meanwhile.
//
// What it promises: after Open, every change beneath the root that the kernel
// tells of yields a hint for the path or a deep hint for a folder above it, and
// so does the loss of events. What no event tells of (stores to shared memory
// maps, changes made on another machine of a network file system, most of what
// an NFS server does for its clients) only the owner's paced scan finds.
//
// Hints are paths beneath the root, never beneath signature.Private at the top.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clsync/clsync/signature"
)

// A Hint says: look at this path again.
type Hint struct {
	Path     signature.Path // "" is the root
	Deep     bool           // look at everything beneath it too, records included
	Overflow bool           // events were lost: why the hint is deep
}

// Names of the backends.
const (
	Auto     = "auto"     // fanotify, else fsnotify
	Fanotify = "fanotify" // Linux with CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH
	Fsnotify = "fsnotify" // anywhere; one watch per folder
)

// Config says what to watch.
type Config struct {
	Root    string
	Backend string // "" is Auto

	// Ignored tells of a path that neither it nor anything beneath it matters.
	// It is called from several goroutines, and must not wait: the kernel's events
	// do meanwhile. May be nil.
	Ignored func(signature.Path) bool

	// Self tells of a process (thread group) ID that it is this daemon, whose own
	// changes need no look. nil is os.Getpid. Only fanotify knows who did it.
	Self func(pid int) bool

	// PollUnwatched is how often folders that cannot be watched are hinted
	// instead. 0 is 10 s.
	PollUnwatched time.Duration

	// Pending is how many hints may wait for a slow reader before they are
	// collapsed into deep hints on the folders above. 0 is 64 Ki.
	Pending int

	Logger *slog.Logger // nil is slog.Default

	smallQueue bool // tests: the kernel's queue is bounded
}

// Stats counts since Open.
type Stats struct {
	Events     uint64 // read from the kernel, before any filter
	Overflows  uint64 // times the kernel lost events
	Unresolved uint64 // events whose folder could not be named
	Collapsed  uint64 // times too many hints waited and were made deep
	Watches    uint64 // folders watched (fsnotify) or file systems marked (fanotify), now
	Unwatched  uint64 // subtrees that are polled because they cannot be watched, now
	Limited    bool   // the limit of watches is reached, now
}

// counters are what the backends count.
type counters struct {
	events, overflows, unresolved, watches, unwatched atomic.Uint64
	limited                                           atomic.Bool
}

// A backend feeds a sink from the kernel's events.
type backend interface {
	// run feeds the sink until ctx ends, and then returns nil, or until close is
	// called. What happens while it does not run is kept for the next run.
	run(ctx context.Context) error
	close() error
}

// A Monitor watches one tree.
type Monitor struct {
	name, reason string
	backend      backend
	sink         *sink
	counters     *counters
	running      sync.Mutex
	closing      sync.Once
	closed       chan struct{}
	closeErr     error
}

// ErrClosed is returned by Run on a closed monitor.
var ErrClosed = errors.New("monitor is closed")

// Open arms the monitor: every change after it returns yields a hint, as soon as
// Run is called. With fsnotify it walks the tree first, adding watches.
func Open(cfg Config) (*Monitor, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("open monitor: %w", err)
	}
	m := &Monitor{counters: new(counters), closed: make(chan struct{})}
	m.sink = newSink(cfg)
	if cfg.Backend != Fsnotify {
		m.name = Fanotify
		if m.backend, err = openFanotify(cfg, m.sink, m.counters); err == nil {
			return m, nil
		}
		if cfg.Backend == Fanotify {
			return nil, fmt.Errorf("open monitor: %w", err)
		}
		m.reason = err.Error()
	}
	m.name = Fsnotify
	if m.backend, err = openRecursive(cfg, m.sink, m.counters); err != nil {
		return nil, fmt.Errorf("open monitor: %w", err)
	}
	return m, nil
}

func (cfg Config) complete() (Config, error) {
	switch cfg.Backend {
	case "":
		cfg.Backend = Auto
	case Auto, Fanotify, Fsnotify:
	default:
		return cfg, fmt.Errorf("unknown backend %q", cfg.Backend)
	}
	root, err := filepath.Abs(cfg.Root)
	if err != nil {
		return cfg, err
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return cfg, err
	}
	if fi, err := os.Stat(root); err != nil {
		return cfg, err
	} else if !fi.IsDir() {
		return cfg, fmt.Errorf("%s is no folder", signature.Quote(root))
	}
	cfg.Root = root
	if cfg.Self == nil {
		own := os.Getpid()
		cfg.Self = func(pid int) bool { return pid == own }
	}
	if cfg.PollUnwatched <= 0 {
		cfg.PollUnwatched = 10 * time.Second
	}
	if cfg.Pending <= 0 {
		cfg.Pending = 64 << 10
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return cfg, nil
}

// Backend returns the name of the backend in use.
func (m *Monitor) Backend() string { return m.name }

// Reason says why Auto took fsnotify; it is empty otherwise.
func (m *Monitor) Reason() string { return m.reason }

// Stats returns the counts so far.
func (m *Monitor) Stats() Stats {
	c := m.counters
	return Stats{
		Events:     c.events.Load(),
		Overflows:  c.overflows.Load(),
		Unresolved: c.unresolved.Load(),
		Collapsed:  m.sink.pending.collapses(),
		Watches:    c.watches.Load(),
		Unwatched:  c.unwatched.Load(),
		Limited:    c.limited.Load(),
	}
}

// Run sends hints until ctx ends or Close is called, and then returns nil. The
// first hint goes at once; what gathers while the receiver is busy makes the next
// batch. A batch is the receiver's to keep: sorted by path, no path twice, nothing
// in it beneath a deep hint. Run does not close hints, and may be called again
// after it returned; what was not sent is sent then.
func (m *Monitor) Run(ctx context.Context, hints chan<- []Hint) error {
	m.running.Lock()
	defer m.running.Unlock()
	select {
	case <-m.closed:
		return ErrClosed
	default:
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- m.backend.run(ctx) }()
	defer cancel()
	err := m.deliver(ctx, hints, done)
	select {
	case <-m.closed:
		return nil // whatever a closed file says
	default:
		return err
	}
}

// deliver sends batches until the backend is done, which it is soon after ctx ends.
func (m *Monitor) deliver(ctx context.Context, hints chan<- []Hint, done <-chan error) error {
	for {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return <-done
		case <-m.sink.pending.wake:
		}
		batch := m.sink.pending.take()
		if len(batch) == 0 {
			continue
		}
		select {
		case hints <- batch:
		case err := <-done:
			m.sink.pending.putBack(batch)
			return err
		case <-ctx.Done():
			m.sink.pending.putBack(batch)
			return <-done
		}
	}
}

// Close ends Run and releases what the kernel keeps. It may be called twice.
func (m *Monitor) Close() error {
	m.closing.Do(func() {
		close(m.closed)
		m.closeErr = m.backend.close()
		m.running.Lock() // waits until Run has returned
		defer m.running.Unlock()
	})
	return m.closeErr
}
