package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/clsync/clsync/transfer/trust"
)

// release is set by the build: -ldflags "-X main.release=1.2.3".
var release string

// version is the release, or what the build says of itself.
func version() string {
	if release != "" {
		return release
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" && b.Main.Version != "(devel)" {
		return b.Main.Version
	}
	return "devel"
}

func versionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			v := struct {
				Schema   string `json:"schema"`
				Version  string `json:"version"`
				Protocol string `json:"protocol"`
				Go       string `json:"go"`
				System   string `json:"system"`
			}{"clsync/version/1", version(), trust.ALPN, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(v)
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "clsync %s, protocol %s, %s, %s\n", v.Version, v.Protocol, v.Go, v.System)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
