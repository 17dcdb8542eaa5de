// Command tlsrelay runs the relay, and is how an operator looks into a running one and
// changes it.
//
//	main.go       the commands and their exit codes
//	app.go        builds every part of the relay from a configuration and runs them
//	bootstrap.go  the parent account and its first key
//	lifecycle.go  starts the parts in order, and stops them in reverse
//	descriptors.go  fits the bounds of connections to the files the process may open
//	http.go log.go  the HTTP listeners; the log
//	words.go      says what hosts did, and what became of mail
//	client.go     HTTP to the operator's listener of a running relay
//	serve.go check.go policy.go account.go key.go queue.go blocks.go webhooks.go config.go version.go
//	              one file per command noun
//	demo.go demo/ the relay of the demo; the demo itself
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes, those of sysexits(3) where it has one.
const (
	exitFailure = 1
	exitUnknown = 2  // check could not find out
	exitUsage   = 64 // EX_USAGE: wrong words or an unusable configuration
)

// exitError carries an exit code to main. What there is to say was printed before.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit %d", e.code) }

func main() { os.Exit(run(os.Args[1:])) }

// run runs one command line and gives its exit code.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, new(usageError)):
		fmt.Fprintln(os.Stderr, "tlsrelay:", err)
		return exitUsage
	}
	fmt.Fprintln(os.Stderr, "tlsrelay:", err)
	if errors.As(err, new(undecidedError)) {
		return exitUnknown
	}
	return exitFailure
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "tlsrelay",
		Short:         "An outbound SMTP relay that keeps a sender's promise about TLS",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          onlyCommands,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		serveCommand(), checkCommand(), policyCommand(), accountCommand(), keyCommand(),
		queueCommand(), blocksCommand(), webhooksCommand(), configCommand(), demoCommand(), versionCommand(),
	)
	return root
}

// onlyCommands makes an unknown command a usage error.
func onlyCommands(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("unknown command %q for %q", args[0], cmd.CommandPath())
	}
	return nil
}

// exactly is cobra.ExactArgs with a usage error that names the missing arguments.
func exactly(what ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(what) {
			return usage("%s wants %d argument(s): %v", cmd.CommandPath(), len(what), what)
		}
		return nil
	}
}

// noun makes a command that only groups others.
func noun(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Args: onlyCommands,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(verbs...)
	return c
}
