package main

import (
	"context"
	"fmt"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// notify tells systemd; without it, nobody.
func (d *daemon) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		d.log.Warn("systemd not told", "state", state, "err", err)
	}
}

// notifyReloading says what newer versions of systemd want to hear with it, too.
func (d *daemon) notifyReloading() {
	d.notify("RELOADING=1\n" + sd.SdNotifyMonotonicUsec() + "STATUS=reading the configuration")
}

// tell is how often systemd is told a line about the state.
const tell = 30 * time.Second

// watchdog pets systemd's dog as long as the engine answers, and keeps the line
// that "systemctl status" shows.
func (d *daemon) watchdog(ctx context.Context) error {
	limit, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read systemd's watchdog interval: %w", err)
	}
	every := tell
	if limit > 0 {
		every = min(tell, limit/3)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			d.pet(ctx, every, limit > 0)
		}
	}
}

// pet asks the engine, for no longer than until the next time.
func (d *daemon) pet(ctx context.Context, every time.Duration, dog bool) {
	ask, cancel := context.WithTimeout(ctx, every)
	defer cancel()
	if err := d.engine.Health(ask); err != nil {
		if ctx.Err() == nil {
			d.log.Error("node does not answer", "err", err)
		}
		return
	}
	state := ""
	if dog {
		state = "WATCHDOG=1\n"
	}
	if s, err := d.engine.Status(ask); err == nil {
		s.Judge(time.Now())
		connected := 0
		for _, p := range s.Peers {
			if p.Connected {
				connected++
			}
		}
		state += fmt.Sprintf("STATUS=%d trees, %d of %d peers connected, %d problems", len(s.Trees), connected, len(s.Peers), len(s.Problems))
	}
	d.notify(state)
}
