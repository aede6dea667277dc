package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clsync/clsync/node/control"
)

func nodesCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "nodes",
		Short: "The nodes of the cluster",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  needSub,
	}
	var asJSON bool
	list := &cobra.Command{
		Use:   "list",
		Short: "List the nodes of the cluster",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			all, err := client.Nodes(c.Context())
			if err != nil {
				return unreachable(err)
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), struct {
					Schema string         `json:"schema"`
					Nodes  []control.Node `json:"nodes"`
				}{"clsync/nodes/1", all})
			}
			_, err = io.WriteString(c.OutOrStdout(), nodesText(time.Now(), all))
			return err
		},
	}
	list.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	remove := &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a node out of the cluster for good",
		Long: "Take a node out of the cluster for good: its key is refused from now on, and\n" +
			"nothing is kept for it any longer. If it holds the cluster key, change that too.",
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			if err := client.RemoveNode(c.Context(), args[0]); err != nil {
				return unreachable(err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "removed %s\n", terminal(args[0]))
			return err
		},
	}
	c.AddCommand(list, remove)
	return c
}

func nodesText(now time.Time, all []control.Node) string {
	var rows []string
	for _, n := range all {
		state := "not connected"
		switch {
		case n.Self:
			state = "this node"
		case n.Connected:
			state = "connected"
		}
		seen := sinceText(now, n.LastSeen)
		if seen != "-" {
			seen += " ago"
		}
		rows = append(rows, strings.Join([]string{n.Name, state, seen, or(n.Addr, "-"), n.ID}, "\t"))
	}
	var b strings.Builder
	table(&b, "NODE\tSTATE\tSEEN\tADDRESS\tKEY", rows)
	return strings.TrimPrefix(b.String(), "\n")
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
