package deliver

import (
	"context"
	"slices"
	"strings"
	"testing"

	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/relaytest"
)

// TestProbeComesToMail: what a host says only to MAIL is told, and what it means
// for a message. A host that cannot be asked with the null sender, or puts it off,
// leaves that open.
func TestProbeComesToMail(t *testing.T) {
	said := func(code int, text string) relaytest.Script {
		return relaytest.Script{Mail: relaytest.Reply{Code: code, Text: text}}
	}
	inClear := func(s relaytest.Script) relaytest.Script { s.NoTLS = true; return s }
	hosts := func(s ...relaytest.Script) []relaytest.Script { return s }
	const first = "5.7.0 Must issue a STARTTLS command first"
	for name, c := range map[string]struct {
		sender  policy.Sender
		scripts []relaytest.Script
		class   relay.Class // "" where it is deliverable
		status  string
		ruling  policy.Ruling
		row     string // of the first host
	}{
		"AUTH":               {modeT, hosts(said(530, "5.7.0 Authentication required")), relay.Permanent, "5.7.0", policy.Allowed, "ENC"},
		"AUTH, in clear":     {modeO, hosts(inClear(said(530, "5.7.0 Authentication required"))), relay.Permanent, "5.7.0", policy.Allowed, "A4"},
		"TLS, in clear":      {modeO, hosts(inClear(said(530, first))), relay.Temporary, "4.7.4", policy.Unreached, "C12"},
		"TLS, in phase 2":    {modeO, hosts(relaytest.Script{TLS: relaytest.TLS{Alert: 80}, NeedTLS: true}), relay.Temporary, "4.7.5", policy.Unreached, "C3"},
		"blocked":            {modeV, hosts(said(554, "5.7.1 blocked by a list")), relay.Permanent, "5.7.1", policy.Allowed, "ENC"},
		"grey":               {modeT, hosts(said(450, "4.7.1 greylisted")), relay.Temporary, "4.7.1", policy.Allowed, "ENC"},
		"421":                {modeT, hosts(said(421, "4.3.2 not now")), relay.Temporary, "4.3.2", policy.Allowed, "ENC"},
		"null sender, words": {modeT, hosts(said(550, "5.7.1 <>: sender rejected")), relay.Temporary, "4.7.1", policy.Allowed, "ENC"},
		"null sender, code":  {modeT, hosts(said(553, "sorry")), relay.Temporary, "4.0.0", policy.Allowed, "ENC"},
		"null sender, X.1.8": {modeT, hosts(said(550, "5.1.8 no such domain")), relay.Temporary, "4.1.8", policy.Allowed, "ENC"},
		"lost":               {modeT, hosts(relaytest.Script{Mail: relaytest.Reply{Do: relaytest.Close}}), relay.Temporary, "4.4.1", policy.Unreached, "C11"},
		"grey, next takes":   {modeT, hosts(said(450, "later"), complies), "", "", policy.Allowed, "ENC"},
		"grey, next refuses": {modeT, hosts(said(450, "later"), said(554, "5.7.1 no")), relay.Permanent, "5.7.1", policy.Allowed, "ENC"},
		"refused, next not":  {modeT, hosts(said(554, "5.7.1 no"), complies), relay.Permanent, "5.7.1", policy.Allowed, "ENC"},
		"taken, next not":    {modeT, hosts(complies, said(554, "5.7.1 no")), "", "", policy.Allowed, "ENC"},
		"grey, phase 2":      {modeO, hosts(said(450, "later"), otherwise), "", "", policy.Allowed, "ENC"},
		"taken, no phase 2":  {modeO, hosts(otherwise, complies), "", "", policy.Allowed, "B6"},
		"no TLS, no MAIL":    {modeT, hosts(inClear(said(530, first))), relay.Refused, "5.7.10", policy.Block, "A4"},
		"RSET is refused":    {modeT, hosts(relaytest.Script{Rset: relaytest.Reply{Code: 500}}), "", "", policy.Allowed, "ENC"},
	} {
		t.Run(name, func(t *testing.T) {
			w := relaytest.Start(t)
			var list []*relaytest.Host
			for i, s := range c.scripts {
				list = append(list, w.Host(t, []string{"mx1.example.test", "mx2.example.test"}[i], s))
			}
			e := engine(t, w, routeTo(list...))
			rep := e.Probe(context.Background(), "example.test", c.sender)
			var f relay.Failure
			if rep.Failure != nil {
				f = *rep.Failure
			}
			if f.Class != c.class || f.Status != c.status || rep.Ruling != c.ruling || rep.Hosts[0].Verdict.Row != c.row {
				t.Errorf("ruling %s, row %s, %+v", rep.Ruling, rep.Hosts[0].Verdict.Row, f)
			}
			if rep.Deliverable() != (c.class == "") {
				t.Errorf("deliverable: %v", rep.Deliverable())
			}
			connections := rep.Hosts[0].Connections
			if last := connections[len(connections)-1]; rep.Hosts[0].Refused != nil && (last.Stage != policy.StageMail || last.Reply == "") {
				t.Errorf("the evidence does not tell: %+v", last)
			}
			// Deliver agrees, where the sender does not matter, nor how much was sent.
			if !strings.HasPrefix(name, "null sender") && name != "lost" {
				r := e.Deliver(context.Background(), jobTo(t, c.sender))
				if g := failureOf(r); g.Class != c.class || r.Attempt.Ruling != rep.Ruling {
					t.Errorf("Deliver: %s %+v", r.Attempt.Ruling, g)
				}
			}
			for _, h := range list {
				if c.sender != modeO && h.LeakedInClear() || len(h.Breaches()) > 0 {
					t.Errorf("in clear %v, breaches %v", h.ClearCommands(), h.Breaches())
				}
			}
		})
	}
}

// TestProbeAsksAsMailDoes: with REQUIRETLS the probe's MAIL has what that of a
// message has.
func TestProbeAsksAsMailDoes(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", relaytest.Script{KeywordsInTLS: []string{"SIZE", "REQUIRETLS", "8BITMIME"}})
	route := routeTo(h)
	route.Hosts[0].Facts.MX = policy.MXDNSSEC
	rep := engine(t, w, route).Probe(context.Background(), "example.test", policy.Sender{RequireTLS: true})
	if !rep.Deliverable() {
		t.Fatalf("%+v", rep.Failure)
	}
	said := func(line string) func(relaytest.Command) bool {
		return func(c relaytest.Command) bool { return c.Line == line && c.TLS }
	}
	if s := h.Sessions()[0]; !slices.ContainsFunc(s.Commands, said("MAIL FROM:<> SIZE=1000 REQUIRETLS")) || !slices.ContainsFunc(s.Commands, said("RSET")) {
		t.Errorf("said %v", s.Commands)
	}
}

// TestProbeOffersNoTicket: what a resumed session shows is as old as its ticket.
func TestProbeOffersNoTicket(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test")
	e := engine(t, w, routeTo(h))
	deliverOne(t, e, modeT, "tls")
	if rep := e.Probe(context.Background(), "example.test", modeT); !rep.Deliverable() || h.Resumed() != 0 {
		t.Errorf("%d resumed; %+v", h.Resumed(), rep.Failure)
	}
}
