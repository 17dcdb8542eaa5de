package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"tlsrelay/configs"
)

func configCommand() *cobra.Command {
	return noun("config", "Configuration files", configCheck(), configDefaults())
}

func configCheck() *cobra.Command {
	c := &cobra.Command{
		Use: "check [FILE]", Short: "Check a configuration file and the environment; print every fault with its line, and warnings (exit 0)",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("config check wants one file")
			}
			return nil
		},
	}
	asJSON := c.Flags().Bool("json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		file := ""
		if len(args) == 1 {
			file = args[0]
		}
		_, warnings, err := configs.Inspect(file, os.Environ())
		faults := configs.Faults{} // and not null, as JSON
		if err != nil && !errors.As(err, &faults) {
			return err
		}
		if *asJSON {
			v := map[string]any{"ok": err == nil, "faults": faults, "warnings": append(configs.Faults{}, warnings...)}
			if perr := printJSON(cmd.OutOrStdout(), v); perr != nil {
				return perr
			}
		} else {
			printFaults(cmd, faults, warnings)
		}
		if err != nil {
			return exitError{exitUsage}
		}
		return nil
	}
	return c
}

// printFaults prints what is wrong, and what is likely to be, a line each.
func printFaults(cmd *cobra.Command, faults, warnings configs.Faults) {
	for _, f := range faults {
		fmt.Fprintln(cmd.ErrOrStderr(), f)
	}
	for _, w := range warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
	}
	if len(faults) == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "ok")
	}
}

func configDefaults() *cobra.Command {
	return &cobra.Command{
		Use: "defaults", Short: "Print the annotated defaults, ready to be edited", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprint(cmd.OutOrStdout(), configs.Defaults)
			return nil
		},
	}
}
