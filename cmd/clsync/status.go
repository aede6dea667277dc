package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/clsync/clsync/node/control"
)

func statusCommand(a *app) *cobra.Command {
	var asJSON, watch bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Say how the node is, and what to do if it is not well",
		Long: "Say how the node is: first what is wrong and what to do about it, then the\n" +
			"details. Exits with 0 if the node is healthy, 1 if it has problems, 69 if no\n" +
			"daemon answers.",
		Args: usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			if watch {
				return watchStatus(c.Context(), client, c.OutOrStdout(), asJSON)
			}
			s, err := client.Status(c.Context())
			if err != nil {
				return unreachable(err)
			}
			if err := printStatus(c.OutOrStdout(), s, asJSON, "  "); err != nil {
				return err
			}
			if !s.Healthy {
				return errNo
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "say it again every 2 s, until ^C; with --json one object a line")
	return c
}

// unreachable says what to do about a daemon that does not answer.
func unreachable(err error) error {
	switch {
	case errors.Is(err, control.ErrUnreachable):
		return fmt.Errorf("%w\nlook at: systemctl status clsync; journalctl -u clsync -n 50", err)
	case errors.Is(err, control.ErrDenied):
		return fmt.Errorf("%w\nask as root, or as a member of the group that the configuration names as operators", err)
	}
	return err
}

func printStatus(w io.Writer, s control.Status, asJSON bool, indent string) error {
	if !asJSON {
		_, err := io.WriteString(w, statusText(s))
		return err
	}
	e := json.NewEncoder(w)
	e.SetIndent("", indent)
	return e.Encode(s)
}

// watchStatus goes on also when the daemon does not answer: it may be restarting.
func watchStatus(ctx context.Context, client *control.Client, w io.Writer, asJSON bool) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		s, err := client.Status(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !asJSON && onTerminal(os.Stdout) {
			if _, err := io.WriteString(w, "\x1b[H\x1b[2J"); err != nil {
				return err
			}
		}
		if err != nil {
			complain(err)
		} else if err := printStatus(w, s, asJSON, ""); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
