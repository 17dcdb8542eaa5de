package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"tlsrelay/configs"
	"tlsrelay/policy/account"
	"tlsrelay/relay/relaytest"
)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "The whole story in one terminal: a relay, receiving hosts, DNS and a webhook receiver on loopback",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Minute)
			defer cancel()
			return demo(ctx, cmd.OutOrStdout())
		},
	}
}

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

// stage is the world of the demo: a relay, hosts, a zone and a webhook receiver.
type stage struct {
	world     *relaytest.World
	receiver  *relaytest.Receiver
	hosts     map[string]*relaytest.Host
	app       *app
	key       string
	publicKey string // of the webhook's signatures
}

// demo plays all scenes and fails if any went otherwise than announced.
func demo(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "tlsrelay-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &stage{hosts: map[string]*relaytest.Host{}}
	defer s.close()
	if err := s.build(dir); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	up := make(chan struct{})
	go func() { ended <- s.app.run(ctx, func() { close(up) }) }()
	defer func() { stop(); err = errors.Join(err, <-ended) }()
	<-up
	if err := s.registerWebhook(ctx); err != nil {
		return fmt.Errorf("registering the webhook: %w", err)
	}
	return s.play(ctx, out)
}

func (s *stage) build(dir string) (err error) {
	if s.world, err = relaytest.NewWorld(); err != nil {
		return err
	}
	if s.receiver, err = relaytest.NewReceiver(); err != nil {
		return err
	}
	for domain, script := range map[string]relaytest.Script{
		"good.example":       {},
		"notls.example":      {NoTLS: true},
		"selfsigned.example": {TLS: relaytest.TLS{Cert: &relaytest.Cert{Names: []string{"mx.selfsigned.example"}, SelfSigned: true}}},
		"old.example":        {TLS: relaytest.TLS{MaxVersion: tls.VersionTLS12}},
	} {
		if s.hosts[domain], err = s.world.AddHost("mx."+domain, script); err != nil {
			return err
		}
	}
	config, err := s.configure(dir)
	if err != nil {
		return err
	}
	if s.app, err = newApp(config, zap.NewNop()); err != nil {
		return err
	}
	s.key = account.NewSecret()
	_, err = bootstrap(context.Background(), s.app.store, config.DataDir, func(name string) string {
		if name == "TLSRELAY_BOOTSTRAP_KEY" {
			return s.key
		}
		return ""
	})
	return err
}

// configure points a default configuration at the demo's own world.
func (s *stage) configure(dir string) (configs.Config, error) {
	roots := filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(roots, s.world.CA.PEM(), 0o600); err != nil {
		return configs.Config{}, err
	}
	c, err := configs.Load("", nil)
	if err != nil {
		return c, err
	}
	c.Hostname, c.DataDir, c.MinFreeDisk = "relay.example", filepath.Join(dir, "data"), 0
	c.Submission.Listen, c.API.Listen, c.Admin.Listen = []string{"127.0.0.1:0"}, "127.0.0.1:0", "127.0.0.1:0"
	c.Delivery.Resolver, c.Delivery.Port, c.Delivery.RootCAFile = s.world.Zone.Addr(), s.world.Port, roots
	c.Delivery.AllowPrivateAddresses = true
	c.Webhooks.AllowInsecure, c.Webhooks.FlushInterval = true, 50*time.Millisecond
	return c, nil
}

func (s *stage) close() {
	if s.receiver != nil {
		s.receiver.Close()
	}
	if s.world != nil {
		s.world.Close()
	}
}

// call makes one request of the public API.
func (s *stage) call(ctx context.Context, method, path, body string, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.app.api.addr()+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, bytes.TrimSpace(answer))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

// registerWebhook makes a signed webhook, as a consumer of events would.
func (s *stage) registerWebhook(ctx context.Context) error {
	var hook struct {
		ID string `json:"id"`
	}
	body := fmt.Sprintf(`{"url":%q,"enabled":true,"processed":false,"delivered":true,"bounce":true,"deferred":true}`, s.receiver.URL())
	const settings = "/v3/user/webhooks/event/settings"
	if err := s.call(ctx, http.MethodPost, settings, body, &hook); err != nil {
		return err
	}
	var signing struct {
		PublicKey string `json:"public_key"`
	}
	err := s.call(ctx, http.MethodPatch, settings+"/signed/"+hook.ID, `{"enabled":true}`, &signing)
	s.publicKey = signing.PublicKey
	return err
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

// submit hands one message in as an application would: STARTTLS, AUTH, DATA.
func (s *stage) submit(to string) error {
	c, err := smtp.DialStartTLS(s.app.submission.Addrs()[0].String(), &tls.Config{InsecureSkipVerify: true}) // its certificate is self-signed
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Auth(sasl.NewPlainClient("", "apikey", s.key)); err != nil {
		return err
	}
	body := "From: app@sender.example\r\nTo: " + to + "\r\nSubject: demo\r\n\r\nHello.\r\n"
	if err := c.SendMail("app@sender.example", []string{to}, strings.NewReader(body)); err != nil {
		return err
	}
	return c.Quit()
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

func settingsWords(patch string) string {
	switch patch {
	case opportunistic:
		return "opportunistic (default)"
	case requireTLS:
		return "require_tls"
	case requireCert:
		return "require_tls, require_valid_cert"
	}
	return "require_tls, version 1.3"
}

func eventWords(e map[string]any) string {
	if e["type"] == "blocked" {
		return fmt.Sprintf("dropped: %v (%v)", e["reason"], e["status"])
	}
	if e["event"] != "delivered" {
		return fmt.Sprint(e["event"])
	}
	if e["tls"] != 1.0 {
		return "delivered in clear"
	}
	if e["cert_err"] == 1.0 {
		return "delivered encrypted (certificate not valid)"
	}
	return "delivered encrypted"
}
