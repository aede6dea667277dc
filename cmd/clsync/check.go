package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/clsync/clsync/node/config"
	"github.com/clsync/clsync/transfer/rsync"
	"github.com/clsync/clsync/transfer/trust"
)

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check-config FILE",
		Short: "Check a configuration file",
		Long: "Check a configuration file and print all that is wrong in it, each with its line.\n" +
			"What is only not there yet on this machine is a warning. Exits with 0 or 78.",
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := config.Load(args[0])
			if err != nil {
				return configError(err)
			}
			for _, w := range warnings(c.Context(), cfg) {
				c.PrintErrf("clsync: %s: warning: %s\n", args[0], terminal(w))
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: ok\n", terminal(args[0]))
			return err
		},
	}
}

// configError makes a file that cannot be read an error of the configuration.
func configError(err error) error {
	var wrong config.Errors
	if errors.As(err, &wrong) {
		return err
	}
	return exitError{exitConfig, err.Error()}
}

// warnings are what this machine lacks for the configuration to work.
func warnings(ctx context.Context, c *config.Config) (ws []string) {
	warn := func(format string, args ...any) { ws = append(ws, fmt.Sprintf(format, args...)) }
	if _, err := rsync.Probe(ctx, c.Rsync); err != nil {
		warn("rsync: %v", err)
	}
	switch _, err := trust.ReadClusterKeys(c.KeyFile); {
	case errors.Is(err, fs.ErrNotExist):
		warn("key_file: %q is not there; copy it from another node, or make one: clsync keygen -o %s", c.KeyFile, c.KeyFile)
	case err != nil:
		warn("key_file: %v", err)
	}
	for _, t := range c.Trees {
		if st, err := os.Stat(t.Path); err != nil || !st.IsDir() {
			warn("tree %s: %q is not a folder on this machine; the tree will not start", t.Name, t.Path)
		}
	}
	if len(c.Trees) == 0 {
		warn("there is no [[tree]]: nothing is replicated")
	}
	if len(c.Gossip.Seeds) == 0 && !c.Multicast.Enabled {
		warn("no seeds and no multicast: this node finds nobody, though others may find it")
	}
	return ws
}
