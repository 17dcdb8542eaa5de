package main

import (
	"context"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"tlsrelay/policy"
	"tlsrelay/relay/api"
)

func policyCommand() *cobra.Command {
	return noun("policy", "The TLS settings of an account", policyShow(), policySet())
}

func policyShow() *cobra.Command {
	c := &cobra.Command{Use: "show", Short: "Show the TLS settings of an account", Args: exactly()}
	name := accountFlag(c)
	return remote(c, func(ctx context.Context, cl *client, _ []string) error {
		var a api.Account
		if err := cl.call(ctx, http.MethodGet, accountPath(*name), nil, &a); err != nil {
			return err
		}
		return cl.show(a.Settings, func(w io.Writer) { printSettings(w, a.Settings) })
	})
}

func printSettings(w io.Writer, s api.Settings) {
	say(w, "require_tls\t%t\n", s.RequireTLS)
	say(w, "require_valid_cert\t%t\n", s.RequireValidCert)
	say(w, "version\t%s\n", s.Version)
	say(w, "on_violation\t%s\n", s.OnViolation)
	say(w, "require_forward_secrecy\t%t\n", s.ForwardSecrecy)
	say(w, "mx_auth_required\t%t\n", s.MXAuthRequired)
	say(w, "requiretls\t%s\n", s.RequireTLSOption)
	say(w, "enforce_on_subusers\t%t\n", s.EnforceOnSubusers)
}

func policySet() *cobra.Command {
	c := &cobra.Command{
		Use: "set", Short: "Change the TLS settings of an account; what is not named stays", Args: exactly(),
		Example: "  tlsrelay policy set --require-tls --version 1.2\n  tlsrelay policy set --account shop --require-valid-cert=false",
	}
	name := accountFlag(c)
	f := c.Flags()
	requireTLS := f.Bool("require-tls", false, "deliver over TLS or not at all")
	validCert := f.Bool("require-valid-cert", false, "and only to a host with a valid certificate")
	version := f.String("version", "", "lowest TLS version: 1.1, 1.2 or 1.3")
	onViolation := f.String("on-violation", "", "drop (at once) or defer (until the queue lifetime ends)")
	secrecy := f.Bool("require-forward-secrecy", false, "refuse RSA key exchange")
	mxAuth := f.Bool("mx-auth-required", false, "the MX must come from signed DNS")
	requiretls := f.String("requiretls", "", "strict or relaxed: must the next host list REQUIRETLS itself?")
	enforce := f.Bool("enforce-on-subusers", false, "make these settings a floor for every subuser")
	return remote(c, func(ctx context.Context, cl *client, _ []string) error {
		in := map[string]any{}
		for flag, value := range map[string]any{
			"require-tls": requireTLS, "require-valid-cert": validCert, "require-forward-secrecy": secrecy,
			"mx-auth-required": mxAuth, "enforce-on-subusers": enforce, "on-violation": onViolation,
		} {
			if f.Changed(flag) {
				in[parameter(flag)] = value
			}
		}
		if err := parseWords(in, *version, *requiretls); err != nil {
			return err
		}
		if len(in) == 0 {
			return usage("nothing to set; see tlsrelay policy set --help")
		}
		var a api.Account
		if err := cl.call(ctx, http.MethodPatch, accountPath(*name), in, &a); err != nil {
			return err
		}
		return cl.show(a.Settings, func(w io.Writer) { printSettings(w, a.Settings) })
	})
}

// parseWords reads the settings that are words of their own.
func parseWords(in map[string]any, version, requiretls string) error {
	if version != "" {
		v, err := policy.ParseVersion(version)
		if err != nil || v < policy.TLS11 {
			return usage("--version must be 1.1, 1.2 or 1.3")
		}
		in["version"] = v
	}
	switch requiretls {
	case "":
	case "strict", "relaxed":
		in["requiretls"] = requiretls
	default:
		return usage("--requiretls must be strict or relaxed")
	}
	return nil
}
