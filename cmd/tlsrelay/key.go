package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"tlsrelay/relay/api"
)

func keyCommand() *cobra.Command {
	return noun("key", "API keys", keyList(), keyCreate(), keyRevoke())
}

// accountFlag adds --account, whose default is the parent account.
func accountFlag(c *cobra.Command) *string {
	return c.Flags().String("account", "parent", `account: "parent", a username, or "account-id ID"`)
}

func keyList() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the API keys of an account", Args: exactly()}
	owner := accountFlag(c)
	return remote(c, func(ctx context.Context, cl *client, _ []string) error {
		var keys []api.Key
		if err := cl.call(ctx, http.MethodGet, accountPath(*owner)+"/keys", nil, &keys); err != nil {
			return err
		}
		return cl.show(keys, func(w io.Writer) {
			fmt.Fprintln(w, "ID\tNAME\tCREATED\tSCOPES")
			for _, k := range keys {
				say(w, "%s\t%s\t%s\t%s\n", k.ID, k.Name, k.Created.Format("2006-01-02 15:04"), scopesOf(k))
			}
		})
	})
}

func scopesOf(k api.Key) string {
	if k.Full {
		return "full access"
	}
	names := make([]string, len(k.Scopes))
	for i, s := range k.Scopes {
		names[i] = string(s)
	}
	return strings.Join(names, " ")
}

func keyCreate() *cobra.Command {
	c := &cobra.Command{Use: "create NAME", Short: "Create an API key; it is shown once", Args: exactly("NAME")}
	owner := accountFlag(c)
	scopes := c.Flags().StringSlice("scope", nil, "a scope the key holds, such as mail.send; may be repeated; none: full access")
	return remote(c, func(ctx context.Context, cl *client, args []string) error {
		in := map[string]any{"name": args[0]}
		if len(*scopes) > 0 {
			in["scopes"] = *scopes
		}
		var k api.Key
		if err := cl.call(ctx, http.MethodPost, accountPath(*owner)+"/keys", in, &k); err != nil {
			return err
		}
		return cl.show(k, func(w io.Writer) {
			say(w, "%s\n\nThis is the only time the key is shown.\n", k.Secret)
		})
	})
}

func keyRevoke() *cobra.Command {
	return remote(&cobra.Command{Use: "revoke ID", Short: "Revoke an API key by its id (after -- if it begins with a dash)", Args: exactly("ID")},
		func(ctx context.Context, c *client, args []string) error {
			return c.call(ctx, http.MethodDelete, "/admin/v1/keys/"+url.PathEscape(args[0]), nil, nil)
		})
}
