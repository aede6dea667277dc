// Command clsync keeps folders the same on several servers.
//
// "clsync node" is the daemon; the other sub-commands prepare it, check it, or
// ask it over its control socket. docs/exit-codes.md lists the exit codes.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clsync/clsync/node/config"
	"github.com/clsync/clsync/node/control"
)

func main() {
	// rsync and the jail start these by the thousand: before anything else.
	if len(os.Args) > 1 {
		if helper, ok := helpers[os.Args[1]]; ok {
			os.Exit(helper(os.Args[2:]))
		}
	}
	os.Exit(run(os.Args[1:], startNode))
}

// run is the program without its process: what tests call.
func run(args []string, start starter) (code int) {
	defer func() {
		if bug := recover(); bug != nil {
			fmt.Fprintf(os.Stderr, "clsync: a bug in clsync: %v\n%s", bug, debug.Stack())
			code = exitBug
		}
	}()
	root := rootCommand(start)
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	if err != nil {
		complain(err)
	}
	return codeOf(err)
}

// complain prints an error, one line for each it is made of.
func complain(err error) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if line != "" {
			fmt.Fprintf(os.Stderr, "clsync: %s\n", terminal(line))
		}
	}
}

// app is what the sub-commands share.
type app struct {
	start  starter
	config string // file, if named
	socket string // of the daemon, if named
}

func rootCommand(start starter) *cobra.Command {
	a := &app{start: start}
	root := &cobra.Command{
		Use:           "clsync",
		Short:         "Keep folders the same on several servers",
		Args:          usageArgs(cobra.NoArgs),
		RunE:          needSub,
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%v; see: %s --help", err, c.CommandPath())
	})
	root.PersistentFlags().StringVarP(&a.config, "config", "c", "", "configuration file (default "+config.DefaultPath+")")
	root.PersistentFlags().StringVar(&a.socket, "socket", "", "control socket of the daemon (default: as configured)")
	root.AddCommand(nodeCommand(a), checkCommand(), initCommand(a), keygenCommand(), statusCommand(a),
		nodesCommand(a), conflictsCommand(a), versionCommand())
	return root
}

// file is the configuration file to use.
func (a *app) file() string {
	if a.config != "" {
		return a.config
	}
	return config.DefaultPath
}

// client asks the daemon of the configuration. Asking must work for people who
// may not read it, and when it is broken: then the usual place is tried.
func (a *app) client() (*control.Client, error) {
	socket := a.socket
	if socket == "" {
		c, err := config.Load(a.file())
		switch {
		case err == nil:
			socket = c.Socket()
		case a.config != "":
			return nil, err
		default:
			socket = "/run/clsync/" + config.SocketName
		}
	}
	return control.NewClient(socket), nil
}

// needSub is what a command does that only has sub-commands.
func needSub(c *cobra.Command, _ []string) error {
	c.SetOut(c.ErrOrStderr())
	if err := c.Help(); err != nil {
		return err
	}
	return usage("say what to do")
}

// usageArgs makes an error about arguments one of usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		err := check(c, args)
		if err == nil {
			return nil
		}
		if near := c.SuggestionsFor(strings.Join(args, " ")); len(near) > 0 {
			return usage("%v; did you mean %q?", err, near[0])
		}
		return usage("%v; see: %s --help", err, c.CommandPath())
	}
}
