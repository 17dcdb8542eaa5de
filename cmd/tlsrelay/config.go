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
		Use: "check [FILE]", Short: "Check a configuration file and the environment; print every fault with its line",
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
		_, err := configs.Load(file, os.Environ())
		faults := configs.Faults{} // and not null, as JSON
		if err != nil && !errors.As(err, &faults) {
			return err
		}
		if *asJSON {
			if perr := printJSON(cmd.OutOrStdout(), map[string]any{"ok": err == nil, "faults": faults}); perr != nil {
				return perr
			}
		} else if err == nil {
			fmt.Fprintln(cmd.OutOrStdout(), "ok")
		} else {
			fmt.Fprintln(cmd.ErrOrStderr(), err)
		}
		if err != nil {
			return exitError{exitUsage}
		}
		return nil
	}
	return c
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
