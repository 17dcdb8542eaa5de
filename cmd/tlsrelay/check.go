package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver"
)

func checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check DOMAIN",
		Short: "Probe every mail host of a domain with the delivery engine, sending no mail",
		Long: `Probe every MX host and address of DOMAIN with the delivery engine itself, up
to MAIL FROM:<> and RSET, sending no mail, and say per host what was seen and
what the relay would do.

Exit code: 0 deliverable, 1 would be blocked or bounced, 2 could not find out,
64 wrong usage.`,
		Args: exactly("DOMAIN"),
	}
	f := c.Flags()
	requireTLS := f.Bool("require-tls", false, "demand TLS")
	validCert := f.Bool("require-valid-cert", false, "demand TLS and a valid certificate")
	version := f.String("version", "", "lowest TLS version under either demand: 1.1, 1.2 or 1.3")
	name := f.String("account", "", "start from the settings of this account of a running relay; the other flags change them")
	file := f.String("config", "", "configuration file, when no --account is given")
	return remote(c, func(ctx context.Context, cl *client, args []string) error {
		address, err := relay.ParseAddress("postmaster@"+args[0], true)
		if err != nil {
			return usage("%q is not a domain name or address literal", args[0])
		}
		v, err := policy.ParseVersion(*version)
		if err != nil || *version != "" && v < policy.TLS11 {
			return usage("--version must be 1.1, 1.2 or 1.3")
		}
		var report deliver.Report
		if *name == "" {
			demanded := policy.Settings{RequireTLS: *requireTLS, RequireValidCert: *validCert, MinVersion: v}
			report, err = probeHere(ctx, demanded, address.Destination(), *file)
		} else {
			in := map[string]any{"domain": args[0], "account": *name}
			for flag, value := range map[string]any{"require-tls": requireTLS, "require-valid-cert": validCert, "version": version} {
				if f.Changed(flag) {
					in[parameter(flag)] = value
				}
			}
			err = cl.call(ctx, http.MethodPost, "/admin/v1/check", in, &report)
		}
		if err != nil {
			return undecided(err)
		}
		if err := cl.show(report, func(w io.Writer) { printReport(w, report) }); err != nil {
			return err
		}
		if code := checkExit(report); code != 0 {
			return exitError{code}
		}
		return nil
	})
}

// probeHere runs the delivery engine in this process: no relay is needed.
func probeHere(ctx context.Context, demanded policy.Settings, destination, file string) (deliver.Report, error) {
	config, _, err := loadConfig(file)
	if err != nil {
		return deliver.Report{}, err
	}
	resolver, engine, err := newEngine(config, zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		return deliver.Report{}, err
	}
	stop := runParts(ctx, part{"resolver", resolver.Run}, part{"delivery", engine.Run})
	defer stop()
	return engine.Probe(ctx, destination, policy.Sender{Account: demanded}), nil
}

// undecidedError is trouble that kept check from finding out.
type undecidedError struct{ error }

func (u undecidedError) Unwrap() error { return u.error }

// undecided keeps trouble on the way from looking like a verdict: exit code 1
// of check says that mail would be blocked.
func undecided(err error) error {
	if errors.As(err, new(usageError)) || errors.As(err, new(exitError)) {
		return err
	}
	return undecidedError{err}
}

func checkExit(r deliver.Report) int {
	switch {
	case r.Deliverable():
		return 0
	case r.Failure != nil && r.Failure.Class == relay.Permanent, r.Ruling == policy.Block:
		return exitFailure
	}
	return exitUnknown
}

func printReport(w io.Writer, r deliver.Report) {
	say(w, "%s: %s\n", r.Destination, verdictWords(r))
	for _, d := range r.Demands {
		say(w, "  demanded: %s %s\t(by %s)\n", d.Requirement, d.Version, d.Source)
	}
	for _, h := range r.Hosts {
		plain := slices.ContainsFunc(h.Connections, func(c relay.HostEvidence) bool { return c.Plain })
		say(w, "\n%s: %s\n", h.Host, hostWords(h.Verdict, plain))
		if h.Refused != nil {
			say(w, "  refuses MAIL: %s\n", h.Refused.Reply)
		}
		for _, c := range h.Connections {
			say(w, "  %s\t%s\t%s\n", c.Address, connectionWords(c), c.Reply)
		}
	}
}
