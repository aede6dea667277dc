package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/clsync/clsync/node/config"
	"github.com/clsync/clsync/node/control"
)

// drain is how long a stopping node may take to finish what is under way.
const drain = 5 * time.Second

// An engine is the running node. Run works until ctx is done and returns when all
// has come to rest.
type engine interface {
	control.Engine
	Run(ctx context.Context) error
}

// A starter makes an engine. What it returns can be asked before it runs.
type starter func(c *config.Config, log *slog.Logger) (engine, error)

func nodeCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "node",
		Short: "Run the daemon",
		Long: "Run the daemon in the foreground, as systemd wants it.\n\n" +
			"TERM or INT: finish what is under way, at most 5 s, and stop; a second one: stop at once.\n" +
			"HUP: read the configuration and the cluster key again.",
		Args: usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			c, err := config.Load(a.file())
			if err != nil {
				return err
			}
			return newDaemon(c).run(a.start)
		},
	}
}

// A daemon is the process around an engine: signals, systemd, the log.
type daemon struct {
	config *config.Config // what runs: replaced by reload, in run's goroutine only
	level  *slog.LevelVar
	log    *slog.Logger
	engine engine
}

func newDaemon(c *config.Config) *daemon {
	level := new(slog.LevelVar)
	level.Set(c.LogLevel)
	return &daemon{config: c, level: level, log: newLog(os.Stderr, c.LogFormat, level, toJournal(os.Stderr))}
}

func (d *daemon) run(start starter) error {
	// Before anything is started: a signal that comes early must not be lost.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	if limit := limitMemory("/proc/self/cgroup", "/sys/fs/cgroup"); limit > 0 {
		d.log.Debug("memory limited", "bytes", limit)
	}

	var err error
	if d.engine, err = start(d.config, d.log); err != nil {
		return err
	}
	server, err := control.Listen(d.config, d.engine, d.log)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.engine.Run(ctx) })
	g.Go(func() error { return server.Serve(ctx) })
	g.Go(func() error { return d.watchdog(ctx) })
	ended := make(chan error, 1)
	go func() { ended <- g.Wait() }()

	d.notify("READY=1\nSTATUS=running")
	d.log.Info("started", "name", d.config.Name, "version", version(), "trees", len(d.config.Trees))
	for {
		select {
		case err := <-ended:
			return err
		case s := <-signals:
			if s == syscall.SIGHUP {
				d.reload(ctx)
				continue
			}
			d.log.Info("stopping", "signal", s.String())
			d.notify("STOPPING=1\nSTATUS=finishing what is under way")
			stop()
			return d.wait(ended, signals)
		}
	}
}

// wait waits for the end, and not for ever. To end in the middle is safe: it is
// what kill -9 does.
func (d *daemon) wait(ended <-chan error, signals <-chan os.Signal) error {
	late := time.NewTimer(drain)
	defer late.Stop()
	for {
		select {
		case err := <-ended:
			if err != nil && !errors.Is(err, context.Canceled) {
				return err
			}
			d.log.Info("stopped")
			return nil
		case <-late.C:
			return fmt.Errorf("stop: not at rest after %s; left as it was", drain)
		case s := <-signals:
			if n, ok := s.(syscall.Signal); ok && n != syscall.SIGHUP {
				return exitError{128 + int(n), "stopped at once"}
			}
		}
	}
}

// reload takes over what can be; a file with an error changes nothing.
func (d *daemon) reload(ctx context.Context) {
	d.notifyReloading()
	defer d.notify("READY=1\nSTATUS=running")
	now, err := config.Load(d.config.File)
	var wrong config.Errors
	switch {
	case errors.As(err, &wrong):
		for _, e := range wrong {
			d.log.Error("configuration not taken over", "file", e.File, "line", e.Line, "err", e.Msg)
		}
		return
	case err != nil:
		d.log.Error("configuration not taken over", "err", err)
		return
	}
	changes := config.Diff(d.config, now)
	next := config.Effective(d.config, now)
	limit, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := d.engine.Reload(limit, next); err != nil {
		d.log.Error("configuration not taken over", "err", err)
		return
	}
	d.config = next
	d.level.Set(next.LogLevel)
	d.log.Info("reloaded", "changed", changes.Live, "added", changes.Added, "removed", changes.Removed)
	if len(changes.Restart) > 0 {
		d.log.Warn("restart clsync for these to count", "keys", changes.Restart)
	}
}
