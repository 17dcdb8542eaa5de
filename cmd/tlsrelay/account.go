package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"tlsrelay/relay/api"
)

func accountCommand() *cobra.Command {
	return noun("account", "Subusers and customer accounts",
		accountList(), accountCreate(), accountSet(),
		accountSwitch("disable", "Stop an account's submission and API calls at once, and hold its queue", true),
		accountSwitch("enable", "Let a disabled account work again, and its queue go on", false),
		accountDelete())
}

func accountPath(name string) string { return "/admin/v1/accounts/" + url.PathEscape(name) }

func accountList() *cobra.Command {
	return remote(&cobra.Command{Use: "list", Short: "List all accounts", Args: exactly()},
		func(ctx context.Context, c *client, _ []string) error {
			var all []api.Account
			if err := c.call(ctx, http.MethodGet, "/admin/v1/accounts", nil, &all); err != nil {
				return err
			}
			return c.show(all, func(w io.Writer) { printAccounts(w, all) })
		})
}

func printAccounts(w io.Writer, all []api.Account) {
	fmt.Fprintln(w, "ID\tKIND\tNAME\tSTATE\tREQUIRE_TLS\tREQUIRE_VALID_CERT\tVERSION\tRECIPIENTS_PER_HOUR")
	for _, a := range all {
		state := "enabled"
		if a.Disabled {
			state = "disabled"
		}
		rate := "-"
		if a.MaxRecipientsPerHour > 0 {
			rate = strconv.Itoa(a.MaxRecipientsPerHour)
		}
		say(w, "%s\t%s\t%s\t%s\t%t\t%t\t%s\t%s\n", a.ID, a.Kind, a.Username, state,
			a.Settings.RequireTLS, a.Settings.RequireValidCert, a.Settings.Version, rate)
	}
}

func accountCreate() *cobra.Command {
	var customer, email string
	c := &cobra.Command{
		Use:   "create [USERNAME]",
		Short: "Create a subuser, or with --customer a customer account",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || (len(args) == 1) == (customer != "") {
				return usage("give either a username or --customer ID")
			}
			return nil
		},
	}
	c.Flags().StringVar(&customer, "customer", "", "id of a customer account, addressed as on-behalf-of: account-id ID")
	c.Flags().StringVar(&email, "email", "", "address of whoever uses it")
	return remote(c, func(ctx context.Context, cl *client, args []string) error {
		in := map[string]any{"customer": customer}
		if len(args) == 1 {
			in = map[string]any{"username": args[0]}
		}
		if email != "" {
			in["email"] = email
		}
		var made api.Account
		if err := cl.call(ctx, http.MethodPost, "/admin/v1/accounts", in, &made); err != nil {
			return err
		}
		return cl.show(made, func(w io.Writer) { printAccounts(w, []api.Account{made}) })
	})
}

func accountSet() *cobra.Command {
	c := &cobra.Command{
		Use: "set NAME", Short: "Set the bounds of an account; what is not named stays", Args: exactly("NAME"),
		Example: "  tlsrelay account set shop --max-recipients-per-hour 5000",
	}
	rate := c.Flags().Int("max-recipients-per-hour", 0, "recipients that it may submit mail for in an hour; 0: as many as it likes")
	return remote(c, func(ctx context.Context, cl *client, args []string) error {
		if !c.Flags().Changed("max-recipients-per-hour") {
			return usage("nothing to set; see tlsrelay account set --help")
		}
		var a api.Account
		err := cl.call(ctx, http.MethodPatch, accountPath(args[0]), map[string]any{"max_recipients_per_hour": *rate}, &a)
		if err != nil {
			return err
		}
		return cl.show(a, func(w io.Writer) { printAccounts(w, []api.Account{a}) })
	})
}

func accountSwitch(verb, short string, disabled bool) *cobra.Command {
	return remote(&cobra.Command{Use: verb + " NAME", Short: short, Args: exactly("NAME")},
		func(ctx context.Context, c *client, args []string) error {
			var a api.Account
			err := c.call(ctx, http.MethodPatch, accountPath(args[0]), map[string]any{"disabled": disabled}, &a)
			if err != nil {
				return err
			}
			return c.show(a, func(w io.Writer) { printAccounts(w, []api.Account{a}) })
		})
}

func accountDelete() *cobra.Command {
	return remote(&cobra.Command{Use: "delete NAME", Short: "Delete an account with its keys and webhooks", Args: exactly("NAME")},
		func(ctx context.Context, c *client, args []string) error {
			return c.call(ctx, http.MethodDelete, accountPath(args[0]), nil, nil)
		})
}
