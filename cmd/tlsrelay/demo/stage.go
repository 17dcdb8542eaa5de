package demo

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"tlsrelay/configs"
	"tlsrelay/relay/relaytest"
)

// stage is the world of the demo: a relay, hosts, a zone and a webhook receiver.
type stage struct {
	world     *relaytest.World
	receiver  *relaytest.Receiver
	hosts     map[string]*relaytest.Host
	relay     *Relay
	key       string
	publicKey string // of the webhook's signatures
}

// build makes everything but the relay, and gives the configuration for it.
func (s *stage) build(dir string) (c configs.Config, err error) {
	if s.world, err = relaytest.NewWorld(); err != nil {
		return c, err
	}
	if s.receiver, err = relaytest.NewReceiver(); err != nil {
		return c, err
	}
	for domain, script := range map[string]relaytest.Script{
		"good.example":       {},
		"notls.example":      {NoTLS: true},
		"selfsigned.example": {TLS: relaytest.TLS{Cert: &relaytest.Cert{Names: []string{"mx.selfsigned.example"}, SelfSigned: true}}},
		"old.example":        {TLS: relaytest.TLS{MaxVersion: tls.VersionTLS12}},
	} {
		if s.hosts[domain], err = s.world.AddHost("mx."+domain, script); err != nil {
			return c, err
		}
	}
	return s.configure(dir)
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
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.relay.API+path, strings.NewReader(body))
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

// submit hands one message in as an application would: STARTTLS, AUTH, DATA.
func (s *stage) submit(to string) error {
	c, err := smtp.DialStartTLS(s.relay.Submission, &tls.Config{InsecureSkipVerify: true}) // its certificate is self-signed
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
