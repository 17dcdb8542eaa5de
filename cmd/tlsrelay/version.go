package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Set by the linker (see Makefile); a build without it says "devel".
var (
	buildVersion = "devel"
	buildCommit  = ""
)

func versionCommand() *cobra.Command {
	c := &cobra.Command{Use: "version", Short: "Print version, commit and Go version", Args: exactly()}
	asJSON := c.Flags().Bool("json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		commit := commitOf()
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), map[string]string{
				"version": buildVersion, "commit": commit, "go": runtime.Version(),
			})
		}
		fmt.Fprintf(cmd.OutOrStdout(), "tlsrelay %s (commit %s, %s)\n", buildVersion, commit, runtime.Version())
		return nil
	}
	return c
}

// commitOf gives the commit that the linker or the Go tool recorded.
func commitOf() string {
	if buildCommit != "" {
		return buildCommit
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}
