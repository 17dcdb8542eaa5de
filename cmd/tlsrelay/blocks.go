package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"tlsrelay/events"
)

func blocksCommand() *cobra.Command {
	return noun("blocks", "The block list of an account", blocksList(), blocksRemove())
}

func blocksList() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List blocked addresses, newest first", Args: exactly()}
	name := accountFlag(c)
	prefix := c.Flags().String("email", "", "only addresses that begin so; % stands for anything")
	limit := c.Flags().Int("limit", 100, "how many; 0: all")
	return remote(c, func(ctx context.Context, cl *client, _ []string) error {
		q := url.Values{"email": {*prefix}, "limit": {strconv.Itoa(*limit)}}
		var rows []events.Block
		if err := cl.call(ctx, http.MethodGet, accountPath(*name)+"/blocks?"+q.Encode(), nil, &rows); err != nil {
			return err
		}
		return cl.show(rows, func(w io.Writer) {
			fmt.Fprintln(w, "ADDRESS\tSTATUS\tWHEN\tMESSAGE\tREASON")
			for _, b := range rows {
				say(w, "%s\t%s\t%s\t%s\t%s\n", b.Email, b.Status, b.Created.Format("2006-01-02 15:04:05"), b.MessageID, clip(b.Reason, 80))
			}
		})
	})
}

func blocksRemove() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "remove [ADDRESS…]", Short: "Take addresses off the block list",
		Args: func(_ *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usage("give either addresses or --all")
			}
			return nil
		},
	}
	name := accountFlag(c)
	c.Flags().BoolVar(&all, "all", false, "the whole list")
	return remote(c, func(ctx context.Context, cl *client, args []string) error {
		in := map[string]any{"all": all}
		if !all {
			in["emails"] = args
		}
		return cl.call(ctx, http.MethodPost, accountPath(*name)+"/blocks/remove", in, nil)
	})
}
