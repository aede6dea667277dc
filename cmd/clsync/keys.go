package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/clsync/clsync/transfer/trust"
)

func keygenCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "keygen",
		Short: "Make a cluster key",
		Long: "Make a cluster key file, which must be the same on all nodes of a cluster and\n" +
			"readable by root only. What is printed can also be added to a key file (>>): the\n" +
			"new key is then its last one, accepted and not yet used, which is how a key is changed.",
		Args: usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if out != "" {
				return newClusterKey(out)
			}
			text, err := clusterKeyText()
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(text)
			return err
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "write to this file, which must not exist, with mode 600")
	return c
}

func newClusterKey(file string) error {
	key, err := trust.GenerateClusterKey()
	if err != nil {
		return err
	}
	keys, err := trust.NewKeys(key)
	if err != nil {
		return err
	}
	return trust.WriteKeyFile(file, keys)
}

// clusterKeyText is the text of a new key file. It is written to a folder that
// only we can enter, since package trust alone knows its form and hands it to
// files only.
func clusterKeyText() (text []byte, err error) {
	dir, err := os.MkdirTemp("", "clsync-keygen-")
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "key")
	if err := newClusterKey(file); err != nil {
		return nil, err
	}
	return os.ReadFile(file)
}
