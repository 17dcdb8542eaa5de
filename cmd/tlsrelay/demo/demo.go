// Package demo is the whole story in one terminal: it builds a small world on loopback
// (receiving hosts, their DNS zone, a webhook receiver), has its caller start a relay in
// it, sends one message for each scene and compares what came of it with what the scene
// announces.
//
//	demo.go    Play: the scenes, and one message of each
//	stage.go   the world, and the calls that an account makes
//	words.go   settings and events, for people
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"text/tabwriter"

	"tlsrelay/configs"
	"tlsrelay/policy/account"
	"tlsrelay/relay/relaytest"
)

// scene is one message of the demo: the settings in force, where it goes, and
// what must come of it.
type scene struct {
	settings string // body of the PATCH
	to       string // receiving domain
	delivered,
	encrypted bool // what must happen
	status string // of the block event
}

const (
	opportunistic = `{"require_tls":false,"require_valid_cert":false,"version":1.1}`
	requireTLS    = `{"require_tls":true,"require_valid_cert":false,"version":1.1}`
	requireCert   = `{"require_tls":true,"require_valid_cert":true,"version":1.1}`
	requireTLS13  = `{"require_tls":true,"require_valid_cert":false,"version":1.3}`
)

var scenes = []scene{
	{opportunistic, "notls.example", true, false, ""},
	{opportunistic, "selfsigned.example", true, true, ""},
	{opportunistic, "good.example", true, true, ""},
	{requireTLS, "notls.example", false, false, "5.7.10"},
	{requireTLS, "selfsigned.example", true, true, ""},
	{requireTLS, "good.example", true, true, ""},
	{requireCert, "selfsigned.example", false, true, "5.7.5"},
	{requireCert, "good.example", true, true, ""},
	{requireTLS13, "old.example", false, false, "5.7.4"},
	{requireTLS13, "good.example", true, true, ""},
}

// Relay is a running relay.
type Relay struct {
	API        string       // address of the public API
	Submission string       // address where mail is submitted with STARTTLS
	Stop       func() error // ends it
}

// Play plays all scenes, prints what came of each, and fails if any went otherwise than
// announced. start starts a relay that has key as its first API key.
func Play(ctx context.Context, out io.Writer, start func(ctx context.Context, c configs.Config, key string) (*Relay, error)) (err error) {
	dir, err := os.MkdirTemp("", "tlsrelay-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &stage{hosts: map[string]*relaytest.Host{}, key: account.NewSecret()}
	defer s.close()
	config, err := s.build(dir)
	if err != nil {
		return err
	}
	if s.relay, err = start(ctx, config, s.key); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.relay.Stop()) }()
	if err := s.registerWebhook(ctx); err != nil {
		return fmt.Errorf("registering the webhook: %w", err)
	}
	return s.play(ctx, out)
}

func (s *stage) play(ctx context.Context, out io.Writer) error {
	fmt.Fprintln(out, "A relay, four receiving hosts, their DNS zone and a webhook receiver, all on loopback.")
	fmt.Fprintln(out)
	tw := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "POLICY\tMAIL TO\tWHAT CAME OF IT\tAS ANNOUNCED")
	bad := 0
	var blocks []string
	for n, sc := range scenes {
		event, err := s.send(ctx, n, sc)
		if err != nil {
			tw.Flush()
			return fmt.Errorf("scene %d (%s to %s): %w", n+1, sc.settings, sc.to, err)
		}
		verdict := "yes"
		if err := s.compare(n, sc, event); err != nil {
			verdict = "NO: " + err.Error()
			bad++
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", settingsWords(sc.settings), sc.to, eventWords(event), verdict)
		if event["type"] == "blocked" {
			text, _ := json.Marshal(event)
			blocks = append(blocks, string(text))
		}
	}
	tw.Flush()
	fmt.Fprintln(out, "\nThe block events as the webhook received them, each in a batch whose signature verified:")
	for _, b := range blocks {
		fmt.Fprintln(out, " ", b)
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d scenes went otherwise than announced", bad, len(scenes))
	}
	fmt.Fprintf(out, "\nAll %d outcomes were as announced.\n", len(scenes))
	return nil
}

// send sets the policy, submits one message and waits for the event that says
// what came of it.
func (s *stage) send(ctx context.Context, n int, sc scene) (map[string]any, error) {
	if err := s.call(ctx, http.MethodPatch, "/v3/user/settings/enforced_tls", sc.settings, nil); err != nil {
		return nil, err
	}
	to := fmt.Sprintf("scene%d@%s", n+1, sc.to)
	if err := s.submit(to); err != nil {
		return nil, err
	}
	var found map[string]any
	_, err := s.receiver.WaitEvents(ctx, func(events []map[string]any) bool {
		for _, e := range events {
			if e["email"] == to {
				found = e
			}
		}
		return found != nil
	})
	return found, err
}

// compare holds what happened, on the webhook and at the host, against what
// was announced.
func (s *stage) compare(n int, sc scene, event map[string]any) error {
	for _, q := range s.receiver.Requests() {
		if err := q.Verify(s.publicKey); err != nil {
			return err
		}
	}
	to := fmt.Sprintf("scene%d@%s", n+1, sc.to)
	var got *relaytest.Message
	for _, m := range s.hosts[sc.to].Messages() {
		if m.To[0].Address == to {
			got = &m
		}
	}
	switch {
	case (got != nil) != sc.delivered:
		return fmt.Errorf("the host has the message: %t", got != nil)
	case got != nil && (got.TLSVersion != 0) != sc.encrypted:
		return fmt.Errorf("the message came encrypted: %t", got.TLSVersion != 0)
	case sc.delivered && event["event"] != "delivered":
		return fmt.Errorf("the event is %v", event["event"])
	case !sc.delivered && (event["event"] != "bounce" || event["type"] != "blocked" ||
		event["reason"] != "TLS required but not supported" || event["status"] != sc.status):
		return fmt.Errorf("the event is %v/%v, %v, %v", event["event"], event["type"], event["reason"], event["status"])
	}
	return nil
}
