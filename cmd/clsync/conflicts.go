package main

import (
	"context"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clsync/clsync/node/control"
	"github.com/clsync/clsync/node/restore"
)

func conflictsCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "conflicts",
		Short: "What lost in a conflict and was kept",
		Long: "Where a path was changed on two nodes at once, all nodes show the same state and\n" +
			"keep the other one, with all its metadata. Here it is seen and taken back.\n" +
			"An ID may be cut short as long as it stays unique.",
		Args: usageArgs(cobra.NoArgs),
		RunE: needSub,
	}
	c.AddCommand(conflictsList(a), conflictsShow(a), conflictsDiff(a), conflictsRestore(a))
	return c
}

func conflictsList(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list [TREE]",
		Short: "List what is kept, newest first",
		Args:  usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			all, err := client.Conflicts(c.Context(), strings.Join(args, ""))
			if err != nil {
				return unreachable(err)
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), struct {
					Schema    string             `json:"schema"`
					Conflicts []control.Conflict `json:"conflicts"`
				}{"clsync/conflicts/1", all})
			}
			_, err = io.WriteString(c.OutOrStdout(), conflictsText(all))
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func conflictsText(all []control.Conflict) string {
	if len(all) == 0 {
		return "Nothing is kept.\n"
	}
	var rows []string
	for _, k := range all {
		rows = append(rows, strings.Join([]string{k.ID, k.When.Local().Format(time.DateTime), k.Tree, k.Type, bytesText(k.Size), k.Node, k.Path}, "\t"))
	}
	var b strings.Builder
	table(&b, "ID\tKEPT SINCE\tTREE\tTYPE\tSIZE\tOF NODE\tPATH", rows)
	return strings.TrimPrefix(b.String(), "\n")
}

// find returns the one kept state that id, which may be cut short, names.
func find(ctx context.Context, client *control.Client, id string) (k control.Conflict, err error) {
	all, err := client.Conflicts(ctx, "")
	if err != nil {
		return k, unreachable(err)
	}
	var found []control.Conflict
	for _, k := range all {
		if k.ID == id {
			return k, nil
		}
		if id != "" && strings.HasPrefix(k.ID, id) {
			found = append(found, k)
		}
	}
	switch len(found) {
	case 0:
		return k, fmt.Errorf("nothing is kept under the ID %s; see: clsync conflicts list", terminal(id))
	case 1:
		return found[0], nil
	}
	return k, fmt.Errorf("%d kept states begin with %s; write more of it", len(found), terminal(id))
}

func conflictsShow(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "show ID",
		Short: "Show what is known of one kept state",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: a.withConflict(func(c *cobra.Command, _ *control.Client, k control.Conflict) error {
			if asJSON {
				return printJSON(c.OutOrStdout(), k)
			}
			_, err := io.WriteString(c.OutOrStdout(), conflictText(k))
			return err
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func conflictText(k control.Conflict) string {
	var b strings.Builder
	for _, row := range [][2]string{
		{"ID", k.ID}, {"Tree", k.Tree}, {"Path", k.Path}, {"Why", k.Why}, {"Kept since", k.When.Local().Format(time.DateTime)},
		{"Of node", k.Node}, {"Version", k.Version}, {"Shown now", k.Winner}, {"Type", k.Type}, {"Size", bytesText(k.Size)},
		{"Modified", k.MTime.Local().Format(time.DateTime)}, {"Kept as", k.Object},
	} {
		fmt.Fprintf(&b, "%-11s %s\n", row[0], or(row[1], "-"))
	}
	return b.String()
}

// withConflict looks up the state that the first argument names.
func (a *app) withConflict(do func(*cobra.Command, *control.Client, control.Conflict) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		client, err := a.client()
		if err != nil {
			return err
		}
		defer client.Close()
		k, err := find(c.Context(), client, args[0])
		if err != nil {
			return err
		}
		return do(c, client, k)
	}
}

func conflictsRestore(a *app) *cobra.Command {
	var dir, as string
	c := &cobra.Command{
		Use:   "restore ID",
		Short: "Put a kept state back",
		Long: "Put a kept state back with all its metadata. It counts as a change made here and\n" +
			"now: all nodes get it, and what it replaces is gone. With --as it goes to another\n" +
			"path of the tree; with --to out of the tree, into a folder of this machine, where\n" +
			"nothing is overwritten.",
		Args: usageArgs(cobra.ExactArgs(1)),
	}
	c.Flags().StringVar(&dir, "to", "", "copy it into this folder instead")
	c.Flags().StringVar(&as, "as", "", "put it at this path of its tree instead")
	c.PreRunE = func(*cobra.Command, []string) error {
		if dir != "" && as != "" {
			return usage("--to and --as do not go together")
		}
		return nil
	}
	c.RunE = a.withConflict(func(c *cobra.Command, client *control.Client, k control.Conflict) error {
		where := k.Path
		if dir != "" {
			raw, err := k.RawPath()
			if err != nil {
				return err
			}
			object, err := k.ObjectPath()
			if err != nil {
				return err
			}
			if err := restore.Object(object, restore.Target{Root: dir, Path: path.Base(raw)}); err != nil {
				return err
			}
			where = path.Join(dir, path.Base(k.Path))
		} else {
			if err := client.Restore(c.Context(), k.Tree, k.ID, as); err != nil {
				return unreachable(err)
			}
			where = or(as, where)
		}
		_, err := fmt.Fprintf(c.OutOrStdout(), "restored %s\n", terminal(where))
		return err
	})
	return c
}
