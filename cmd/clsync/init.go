package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clsync/clsync/node/config"
	"github.com/clsync/clsync/transfer/trust"
)

// An initial is what "clsync init" is told.
type initial struct {
	name, cluster, keyFile, stateDir, runDir string
	seeds, trees                             []string
	newCluster                               bool
}

func initCommand(a *app) *cobra.Command {
	var in initial
	c := &cobra.Command{
		Use:   "init",
		Short: "Write a first configuration and make this node's key",
		Long: "Write a commented configuration file and make this node's own key. With\n" +
			"--new-cluster a cluster key is made as well, which is then copied to the other\n" +
			"nodes. Nothing that exists is overwritten.",
		Example: "  clsync init --new-cluster --tree www=/srv/www      # on the first node\n" +
			"  clsync init --tree www=/srv/www --seed 192.0.2.1   # on the others",
		Args: usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return in.run(c.OutOrStdout(), a.file()) },
	}
	f := c.Flags()
	f.StringVar(&in.name, "name", "", "this node's name (default: the host name)")
	f.StringVar(&in.cluster, "cluster", "", "the cluster's name")
	f.StringVar(&in.keyFile, "key-file", "", "the cluster key's file")
	f.StringVar(&in.stateDir, "state-dir", "", "folder for index and node key")
	f.StringVar(&in.runDir, "run-dir", "", "folder for the control socket")
	f.StringSliceVar(&in.seeds, "seed", nil, "address of another node; may be repeated")
	f.StringSliceVar(&in.trees, "tree", nil, "a tree, as NAME=PATH; may be repeated")
	f.BoolVar(&in.newCluster, "new-cluster", false, "make a cluster key too")
	return c
}

// text is the configuration file, checked as any other.
func (in initial) text(file string) (string, *config.Config, error) {
	set := map[string]string{}
	for key, v := range map[string]string{
		"name": in.name, "cluster": in.cluster, "key_file": in.keyFile, "state_dir": in.stateDir, "run_dir": in.runDir,
	} {
		if v != "" {
			set[key] = fmt.Sprintf("%q", v)
		}
	}
	if len(in.seeds) > 0 {
		quoted := make([]string, len(in.seeds))
		for i, s := range in.seeds {
			quoted[i] = fmt.Sprintf("%q", s)
		}
		set["gossip.seeds"] = "[" + strings.Join(quoted, ", ") + "]"
	}
	var trees []config.Tree
	for _, s := range in.trees {
		name, path, ok := strings.Cut(s, "=")
		if !ok {
			return "", nil, usage("--tree %s: want NAME=PATH", s)
		}
		trees = append(trees, config.Tree{Name: name, Path: path})
	}
	text := config.Template(set, trees...)
	c, err := config.Parse(file, text)
	if err != nil {
		return "", nil, fmt.Errorf("the file would be wrong:\n%w", err)
	}
	if in.name == "" { // said once, so that a new host name does not change it
		in.name = c.Name
		return in.text(file)
	}
	return text, c, nil
}

func (in initial) run(out io.Writer, file string) error {
	text, c, err := in.text(file)
	if err != nil {
		return err
	}
	fresh := []string{file}
	if in.newCluster {
		fresh = append(fresh, c.KeyFile)
	}
	for _, name := range fresh { // before anything is made
		if _, err := os.Lstat(name); err == nil {
			return exitError{exitCannot, name + " exists; it is not overwritten"}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for dir, mode := range map[string]fs.FileMode{c.StateDir: 0o700, filepath.Dir(c.KeyFile): 0o755, filepath.Dir(file): 0o755} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return err
		}
	}
	key, err := trust.LoadNodeKey(c.NodeKey())
	if err != nil {
		return err
	}
	id, err := trust.NodeIDOf(key.Public().(ed25519.PublicKey))
	if err != nil {
		return err
	}
	if in.newCluster {
		if err := newClusterKey(c.KeyFile); err != nil {
			return err
		}
	}
	if err := writeNew(file, text); err != nil {
		return err
	}
	_, err = io.WriteString(out, in.next(file, c, id.String()))
	return err
}

// writeNew writes a file that did not exist, durably.
func writeNew(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// next says what was made and what to do now.
func (in initial) next(file string, c *config.Config, id string) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("Wrote %s", file)
	say("This node is %s, key %s (in %s)", c.Name, id, c.NodeKey())
	if in.newCluster {
		say("Made the cluster key %s", c.KeyFile)
	}
	say("\nNext:")
	step := 0
	todo := func(format string, args ...any) {
		step++
		say("  %d. %s", step, fmt.Sprintf(format, args...))
	}
	if in.newCluster {
		todo("Copy %s to the other nodes, as root, mode 600.\n     Whoever has it is a member of the cluster.", c.KeyFile)
	} else if _, err := os.Lstat(c.KeyFile); err != nil {
		todo("Copy the cluster key from another node to %s, as root, mode 600.", c.KeyFile)
	}
	if len(c.Trees) == 0 {
		todo("Name the folders to replicate, as [[tree]] in %s.", file)
	}
	if len(c.Gossip.Seeds) == 0 {
		todo("If multicast does not reach the other nodes, name one as a seed in %s.", file)
	}
	todo("clsync check-config %s", file)
	todo("systemctl enable --now clsync")
	todo("clsync status")
	return b.String()
}
