package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tlsrelay/events"
	"tlsrelay/relay"
	"tlsrelay/relay/api/mail"
)

func queueCommand() *cobra.Command {
	return noun("queue", "The queue, by destination and by message",
		queueList(), queueShow(),
		queueAct("retry", "Try deliveries now"),
		queueAct("hold", "Keep deliveries from being tried until they are released"),
		queueAct("release", "Let held deliveries be tried again"),
		queueAct("drop", "Give deliveries up: senders get a report and a block event"),
		queueGuard())
}

func queueList() *cobra.Command {
	c := &cobra.Command{
		Use: "list [DESTINATION]", Short: "Count what waits by destination and age, or list one destination's messages",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("queue list wants one destination")
			}
			return nil
		},
	}
	after := c.Flags().String("after", "", "without a destination: list the destinations whose names come behind this one")
	limit := c.Flags().Int("limit", 100, "destinations, or messages, to list")
	offset := c.Flags().Int("offset", 0, "with a destination: messages to skip")
	held := c.Flags().Bool("held", false, "with a destination: only held ones")
	return remote(c, func(ctx context.Context, cl *client, args []string) error {
		q := url.Values{"limit": {strconv.Itoa(*limit)}}
		if len(args) == 0 {
			q.Set("after", *after)
			return queueOverview(ctx, cl, q)
		}
		q.Set("destination", args[0])
		q.Set("offset", strconv.Itoa(*offset))
		if *held {
			q.Set("held", "true")
		}
		var list []relay.Queued
		more, err := cl.list(ctx, "/admin/v1/queue/messages", q, &list)
		if err != nil {
			return err
		}
		err = cl.show(list, func(w io.Writer) { printQueued(w, list) })
		if more > 0 {
			fmt.Fprintf(cl.err, "%d%s more messages: --offset %d\n", more, plus(more >= mail.CountedMore), *offset+len(list))
		}
		return err
	})
}

func queueOverview(ctx context.Context, cl *client, q url.Values) error {
	var rows []relay.QueueRow
	more, err := cl.list(ctx, "/admin/v1/queue", q, &rows)
	if err != nil {
		return err
	}
	err = cl.show(rows, func(w io.Writer) { printOverview(w, rows) })
	if more > 0 {
		fmt.Fprintf(cl.err, "%d more destinations: --after %s\n", more, rows[len(rows)-1].Destination)
	}
	return err
}

func printOverview(w io.Writer, rows []relay.QueueRow) {
	fmt.Fprint(w, "DESTINATION\tWAITING\tHELD")
	for _, b := range relay.AgeBuckets() {
		say(w, "\t<%s", short(b))
	}
	fmt.Fprintln(w, "\tOLDER\tLAST TROUBLE")
	for _, r := range rows {
		say(w, "%s\t%d%s\t%d", r.Destination, r.Waiting, plus(r.More), r.Held)
		for _, n := range r.Ages {
			say(w, "\t%d", n)
		}
		say(w, "\t%s %s\n", r.Reason, clip(r.Reply, 60))
	}
}

func plus(more bool) string {
	if more {
		return "+"
	}
	return ""
}

// short writes a duration of whole hours or minutes as people do.
func short(d time.Duration) string {
	if d >= time.Hour {
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dm", d/time.Minute)
}

// clip shortens what a remote host said.
func clip(s string, n int) string {
	if c := events.Clip(s, n); c != s {
		return c + "…"
	}
	return s
}

func printQueued(w io.Writer, list []relay.Queued) {
	fmt.Fprintln(w, "MESSAGE\tAGE\tFROM\tTO\tATTEMPTS\tNEXT\tLAST TROUBLE")
	for _, q := range list {
		d := q.Delivery
		next := d.Due.Format("15:04:05")
		if d.Held {
			next = "held"
		}
		reason, reply := d.LastReason()
		say(w, "%s\t%s\t<%s>\t%s\t%d\t%s\t%s %s\n", q.Message.ID, time.Since(q.Message.Accepted).Round(time.Second),
			q.Message.From, recipients(d), d.Attempts, next, reason, clip(reply, 60))
	}
}

func recipients(d relay.Delivery) string {
	open := d.Waiting()
	if len(open) == 0 {
		return "-"
	}
	s := d.Recipients[open[0]].Address.String()
	if len(open) > 1 {
		s += fmt.Sprintf(" and %d more", len(open)-1)
	}
	return s
}

func queueShow() *cobra.Command {
	return remote(&cobra.Command{Use: "show MESSAGE", Short: "Show a message, queued or finished: attempts, and the evidence of every host", Args: exactly("MESSAGE")},
		func(ctx context.Context, c *client, args []string) error {
			var ev mail.Evidence
			if err := c.call(ctx, http.MethodGet, "/admin/v1/messages/"+url.PathEscape(args[0]), nil, &ev); err != nil {
				return err
			}
			return c.show(ev, func(w io.Writer) { printEvidence(w, ev) })
		})
}

func printEvidence(w io.Writer, ev mail.Evidence) {
	m := ev.Message
	say(w, "message %s: %s\n", m.ID, stateWords(ev.Deliveries))
	say(w, "of account %s, from <%s>, %d octets, accepted %s\n", m.Account, m.From, m.Size, m.Accepted.Format(time.RFC3339))
	if m.Report {
		say(w, "a report of this relay")
		if m.ReportOf != (relay.MessageID{}) {
			say(w, " on message %s", m.ReportOf)
		}
		fmt.Fprintln(w)
	}
	for _, d := range ev.Deliveries {
		say(w, "\nto %s, %s (class %s): %d attempt(s)", d.Lane.Destination, d.Lane.Class.Words(), d.Lane.Class, d.Attempts)
		if len(d.Waiting()) > 0 && !d.Held {
			say(w, ", next %s", d.Due.Format(time.RFC3339))
		} else if d.Held {
			fmt.Fprint(w, ", held")
		}
		fmt.Fprintln(w)
		for _, r := range d.Recipients {
			state := string(r.State)
			if state == "" {
				state = "waiting"
			}
			say(w, "  <%s>\t%s\t%s\n", r.Address, state, clip(r.Reply, 120))
		}
		if d.Last == nil {
			continue
		}
		say(w, "  last attempt %s, took %s: %s %s\n", d.Last.At.Format(time.RFC3339), d.Last.Took.Round(time.Millisecond), d.Last.Ruling, d.Last.Reason)
		for _, h := range d.Last.Hosts {
			say(w, "    %s %s\t%s\t%s\t%s\n", h.Host, h.Address, hostWords(h.Verdict, h.Plain), connectionWords(h), clip(h.Reply, 80))
		}
	}
}

func queueAct(verb, short string) *cobra.Command {
	var all bool
	var destination, account, reason string
	c := &cobra.Command{
		Use: verb + " [MESSAGE]", Short: short,
		Args: func(_ *cobra.Command, args []string) error {
			named := len(args)
			if destination != "" || account != "" || all {
				named++
			}
			if len(args) > 1 || named == 0 {
				return usage("name a message, or give --destination, --account or --all")
			}
			return nil
		},
	}
	c.Flags().StringVar(&destination, "destination", "", "everything for this destination")
	c.Flags().StringVar(&account, "account", "", "everything of this account")
	c.Flags().BoolVar(&all, "all", false, "everything")
	if verb == "drop" {
		c.Flags().StringVar(&reason, "reason", "", "told to the senders")
	}
	return remote(c, func(ctx context.Context, cl *client, args []string) error {
		in := map[string]any{
			"all": all, "message": strings.Join(args, ""), "destination": destination, "account": account, "reason": reason,
		}
		var out mail.Changed
		if err := cl.call(ctx, http.MethodPost, "/admin/v1/queue/"+verb, in, &out); err != nil {
			return err
		}
		return cl.show(out, func(w io.Writer) { say(w, "%d deliveries\n", out.Changed) })
	})
}

func queueGuard() *cobra.Command {
	c := &cobra.Command{
		Use: "guard", Args: exactly(),
		Short: "Show whether the mass-violation guard holds mail back; --release lets drops go on",
	}
	release := c.Flags().Bool("release", false, "the fault is not ours: forget what was seen")
	return remote(c, func(ctx context.Context, cl *client, _ []string) error {
		var g mail.Guard
		var err error
		if *release {
			err = cl.call(ctx, http.MethodPost, "/admin/v1/guard/release", struct{}{}, &g)
		} else {
			err = cl.call(ctx, http.MethodGet, "/admin/v1/guard", nil, &g)
		}
		if err != nil {
			return err
		}
		return cl.show(g, func(w io.Writer) {
			if g.Holding {
				fmt.Fprintln(w, "holding: nearly every destination fails its TLS demands, so nothing is dropped")
			} else {
				fmt.Fprintln(w, "not holding")
			}
		})
	})
}
