package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"tlsrelay/events/webhook"
)

func webhooksCommand() *cobra.Command {
	return noun("webhooks", "Delivery of events", webhooksList())
}

func webhooksList() *cobra.Command {
	return remote(&cobra.Command{Use: "list", Short: "List the endpoints with events waiting: lag, failures, last trouble", Args: exactly()},
		func(ctx context.Context, c *client, _ []string) error {
			var all []webhook.EndpointStatus
			if err := c.call(ctx, http.MethodGet, "/admin/v1/webhooks", nil, &all); err != nil {
				return err
			}
			return c.show(all, func(w io.Writer) {
				fmt.Fprintln(w, "ENDPOINT\tLAG\tASIDE\tFAILURES\tLAST ERROR")
				for _, s := range all {
					say(w, "%s\t%s\t%d\t%d\t%s\n", s.ID, s.Lag.Round(time.Second), s.Aside, s.Failures, s.LastError)
				}
			})
		})
}
