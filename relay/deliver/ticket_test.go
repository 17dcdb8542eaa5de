package deliver

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay/relaytest"
)

// versions are those that hosts are made to speak here.
var versions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// modes are the columns.
var modes = map[string]policy.Sender{"O": modeO, "T": modeT, "V": modeV}

// hangUp hangs up on everybody and waits until the host knows it, so that the next
// message needs a new connection.
func hangUp(t *testing.T, h *relaytest.Host) {
	t.Helper()
	h.HangUp()
	ctx, cancel := context.WithTimeout(context.Background(), relaytest.Patience)
	defer cancel()
	if err := h.WaitFor(ctx, func() bool { return h.Open() == 0 }); err != nil {
		t.Fatal(err)
	}
}

// lastHellos are the ClientHellos from the nth connection on.
func lastHellos(h *relaytest.Host, n int) (tickets []bool) {
	for _, s := range h.Sessions()[n:] {
		tickets = append(tickets, s.Hello != nil && s.Hello.Ticket)
	}
	return tickets
}

// TestTicketsThatBreakSessions is row C8r: whatever goes wrong where a ticket was
// offered, from the handshake to the answer to the first MAIL, costs one more
// connection and nothing else, once a day.
func TestTicketsThatBreakSessions(t *testing.T) {
	said := func(code int) relaytest.Reply { return relaytest.Reply{Code: code, Text: "no"} }
	do := func(d relaytest.Do) relaytest.Reply { return relaytest.Reply{Do: d} }
	shaking := func(tl relaytest.TLS) relaytest.Script { tl.WithTicket = true; return relaytest.Script{TLS: tl} }
	second := func(r relaytest.Reply) relaytest.Script {
		return relaytest.Script{Resumed: &relaytest.Script{EHLOInTLS: r}}
	}
	mail := func(r relaytest.Reply, keywords ...string) relaytest.Script {
		return relaytest.Script{KeywordsInTLS: keywords, Resumed: &relaytest.Script{Mail: r, KeywordsInTLS: keywords}}
	}
	for name, c := range map[string]struct {
		script relaytest.Script
		reason events.Reason
	}{
		"handshake/close":    {shaking(relaytest.TLS{Do: relaytest.Close}), events.TLSClosed},
		"handshake/reset":    {shaking(relaytest.TLS{Do: relaytest.Reset}), events.TLSClosed},
		"handshake/silence":  {shaking(relaytest.TLS{Do: relaytest.Silence}), events.TLSTimeout},
		"handshake/alert-40": {shaking(relaytest.TLS{Alert: 40}), events.TLSHandshake},
		"handshake/alert-80": {shaking(relaytest.TLS{Alert: 80}), events.TLSHandshake},
		"handshake/garbage":  {shaking(relaytest.TLS{Garbage: "500 what?\r\n"}), events.TLSNotTLS},
		"EHLO/close":         {second(do(relaytest.Close)), events.TLSClosed},
		"EHLO/reset":         {second(do(relaytest.Reset)), events.TLSClosed},
		"EHLO/silence":       {second(do(relaytest.Silence)), events.TLSTimeout},
		"EHLO/554":           {second(said(554)), events.EHLOFail},
		"EHLO/421":           {second(said(421)), events.EHLOFail},
		"EHLO/504":           {second(said(504)), events.NameRefused},
		"MAIL/close":         {mail(do(relaytest.Close)), events.SessionLost},
		"MAIL/reset":         {mail(do(relaytest.Reset)), events.SessionLost},
		"MAIL/silence":       {mail(do(relaytest.Silence)), events.SessionLost},
		"MAIL/554":           {mail(said(554)), events.ReplyPerm},
		"MAIL/421":           {mail(said(421)), events.ReplyTemp},
		"MAIL/554/stepwise":  {mail(said(554), "8BITMIME"), events.ReplyPerm},
		"MAIL/554/pipelined": {mail(said(554), "PIPELINING"), events.ReplyPerm},
		"MAIL/421/stepwise":  {mail(said(421), "8BITMIME"), events.ReplyTemp},
	} {
		for version, highest := range versions {
			for mode, sender := range modes {
				if strings.HasSuffix(name, "silence") && mode != "O" {
					continue // takes its time, and the judgement is the same
				}
				t.Run(name+"/"+version+"/"+mode, func(t *testing.T) {
					t.Parallel()
					script := c.script
					script.TLS.MaxVersion = highest
					breakTicket(t, script, sender, c.reason, name)
				})
			}
		}
	}
}

// breakTicket delivers to a host whose resumed sessions break, until it has been
// found out, and after that.
func breakTicket(t *testing.T, script relaytest.Script, sender policy.Sender, reason events.Reason, name string) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", script)
	e := engine(t, w, routeTo(h), func(o *Options) {
		if strings.HasSuffix(name, "silence") {
			hasty(o)
		}
	})
	for range 2 { // the second one on a pooled session
		deliverOne(t, e, sender, "tls")
	}
	hangUp(t, h)
	r := deliverOne(t, e, sender, "tls")
	if got := lastHellos(h, 0); fmt.Sprint(got) != "[false true false]" {
		t.Errorf("tickets offered on %v", got)
	}
	if !shown(r, "C8r", policy.Unreachable, reason) || len(r.Attempt.Hosts) != 2 || r.Attempt.Hosts[1].TLS.Resumed {
		t.Errorf("%+v", r.Attempt.Hosts)
	}
	if n := counted(t, e.metrics.ticketFailed); n != 1 {
		t.Errorf("%v failures counted", n)
	}
	// For a day none is offered, though the host hands out new ones.
	hangUp(t, h)
	deliverOne(t, e, sender, "tls")
	if got := lastHellos(h, 3); fmt.Sprint(got) != "[false]" {
		t.Errorf("tickets offered afterwards on %v", got)
	}
	// After it there is no old one left to offer.
	e.client.Profiles.NoTickets.Forget(h.Addr())
	hangUp(t, h)
	deliverOne(t, e, sender, "tls")
	if got := lastHellos(h, 4); fmt.Sprint(got) != "[false]" {
		t.Errorf("tickets offered after a day on %v", got)
	}
	if h.Accepted() != 5 || h.LeakedInClear() || len(h.Breaches()) > 0 {
		t.Errorf("%d messages, in clear %v, breaches %v", h.Accepted(), h.LeakedInClear(), h.Breaches())
	}
}

// TestTicketIsNoExcuse: what fails without a ticket as well is judged as ever, and
// the compat hello is still to come.
func TestTicketIsNoExcuse(t *testing.T) {
	w := relaytest.Start(t)
	for name, c := range map[string]struct {
		script relaytest.Script
		fate   string
		row    string
		hellos int
	}{
		"EHLO/O":             {relaytest.Script{EHLOInTLS: relaytest.Reply{Do: relaytest.Close}}, "clear", "C8", 3},
		"handshake/O":        {relaytest.Script{TLS: relaytest.TLS{Alert: 80}}, "clear", "C3", 3},
		"handshake/T":        {relaytest.Script{TLS: relaytest.TLS{Alert: 70}}, "block", "C1", 2},
		"handshake/V":        {relaytest.Script{TLS: relaytest.TLS{Do: relaytest.Close}}, "defer", "B6", 4},
		"handshake/compat/T": {relaytest.Script{TLS: relaytest.TLS{Do: relaytest.Close, HelloOver: 1000}}, "tls", "ENC", 3},
		"MAIL/T":             {relaytest.Script{Mail: relaytest.Reply{Code: 550, Text: "5.7.1 no"}}, "bounce", "ENC", 1},
	} {
		t.Run(name, func(t *testing.T) {
			h := w.Host(t, "mx1.example.test")
			e := engine(t, w, routeTo(h))
			sender := modes[name[len(name)-1:]]
			deliverOne(t, e, sender, "tls")
			hangUp(t, h)
			if err := h.SetScript(c.script); err != nil {
				t.Fatal(err)
			}
			r := deliverOne(t, e, sender, c.fate)
			hellos := 0
			for _, s := range h.Sessions()[1:] {
				if s.Hello != nil {
					hellos++
				}
			}
			found := false
			for _, x := range r.Attempt.Hosts {
				found = found || x.Verdict.Row == c.row
			}
			if hellos != c.hellos || !found {
				t.Errorf("%d hellos, want %d; want row %s in %+v", hellos, c.hellos, c.row, r.Attempt.Hosts)
			}
			h.Close()
		})
	}
}

// keeper is a host's configuration whose tickets outlive a change of script.
func keeper(t *testing.T, w *relaytest.World, c relaytest.Cert, highest uint16, key byte) relaytest.TLS {
	t.Helper()
	cert, err := w.CA.Issue(c)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: highest}
	config.SetSessionTicketKeys([][32]byte{{key}})
	return relaytest.TLS{Config: config}
}

// TestOldTicketOldCertificate: a session that is resumed shows the certificate of
// its ticket. Only the one that the host has now can speak against it.
func TestOldTicketOldCertificate(t *testing.T) {
	const mx = "mx1.example.test"
	for version, highest := range versions {
		t.Run(version, func(t *testing.T) {
			w := relaytest.Start(t)
			bad := keeper(t, w, relaytest.Cert{Names: []string{"other.test"}}, highest, 1)
			good := keeper(t, w, relaytest.Cert{Names: []string{mx}}, highest, 1)
			h := w.Host(t, mx, relaytest.Script{TLS: bad})
			e := engine(t, w, routeTo(h))
			deliverOne(t, e, modeT, "tls")
			hangUp(t, h)
			if err := h.SetScript(relaytest.Script{TLS: good}); err != nil {
				t.Fatal(err)
			}
			r := deliverOne(t, e, modeV, "tls")
			if h.Resumed() != 1 || !shown(r, "C8r", policy.Unreachable, events.CertName) || !shown(r, "ENC", policy.OK, "") {
				t.Errorf("%d resumed: %+v", h.Resumed(), r.Attempt.Hosts)
			}
			hangUp(t, h) // resumption works; only that ticket was old
			deliverOne(t, e, modeV, "tls")
			if h.Resumed() != 2 {
				t.Errorf("%d resumed", h.Resumed())
			}
		})
	}
}

// TestDeclinedTicket: a host may decline a ticket. Its refusal of MAIL is then
// about the message, and no other connection is spent on it.
func TestDeclinedTicket(t *testing.T) {
	for version, highest := range versions {
		t.Run(version, func(t *testing.T) {
			w := relaytest.Start(t)
			cert := relaytest.Cert{Names: []string{"mx1.example.test"}}
			h := w.Host(t, "mx1.example.test", relaytest.Script{TLS: keeper(t, w, cert, highest, 1)})
			e := engine(t, w, routeTo(h))
			deliverOne(t, e, modeT, "tls")
			hangUp(t, h)
			if err := h.SetScript(relaytest.Script{TLS: keeper(t, w, cert, highest, 2), Mail: relaytest.Reply{Code: 550, Text: "5.7.1 no"}}); err != nil {
				t.Fatal(err)
			}
			deliverOne(t, e, modeT, "bounce")
			if got := lastHellos(h, 1); fmt.Sprint(got) != "[true]" || h.Resumed() != 0 {
				t.Errorf("tickets on %v, %d resumed", got, h.Resumed())
			}
		})
	}
}

// TestTicketGoesBad: a host whose resumed sessions have worked is trusted with a
// message in one flight. One that then dies with it costs that message a wait, for
// it may have arrived, and no other.
func TestTicketGoesBad(t *testing.T) {
	for version, highest := range versions {
		t.Run(version, func(t *testing.T) {
			w := relaytest.Start(t)
			same := keeper(t, w, relaytest.Cert{Names: []string{"mx1.example.test"}}, highest, 1)
			h := w.Host(t, "mx1.example.test", relaytest.Script{TLS: same})
			e := engine(t, w, routeTo(h))
			for range 3 {
				deliverOne(t, e, modeT, "tls")
				hangUp(t, h)
			}
			if h.Resumed() != 2 {
				t.Fatalf("%d resumed", h.Resumed())
			}
			if err := h.SetScript(relaytest.Script{TLS: same, Resumed: &relaytest.Script{Mail: relaytest.Reply{Do: relaytest.Close}}}); err != nil {
				t.Fatal(err)
			}
			e.Deliver(context.Background(), jobTo(t, modeT))
			deliverOne(t, e, modeT, "tls")
			if tickets := lastHellos(h, h.Connections()-1); tickets[0] {
				t.Error("a ticket was offered again")
			}
			if h.LeakedInClear() {
				t.Error("sent in clear")
			}
		})
	}
}

// TestTicketOfferedOnce: a ticket of TLS 1.3 is for one session (RFC 8446 §C.4), of
// TLS 1.2 for many; both keep resuming.
func TestTicketOfferedOnce(t *testing.T) {
	for version, highest := range versions {
		t.Run(version, func(t *testing.T) {
			w := relaytest.Start(t)
			h := w.Host(t, "mx1.example.test", relaytest.Script{TLS: relaytest.TLS{MaxVersion: highest}})
			e := engine(t, w, routeTo(h))
			for range 4 {
				deliverOne(t, e, modeT, "tls")
				hangUp(t, h)
			}
			if h.Resumed() != 3 {
				t.Errorf("%d of 3 resumed", h.Resumed())
			}
		})
	}
}

// TestSilentResumedSession: silence on a resumed session costs as much as a silent
// handshake, so that the attempt has time for another connection.
func TestSilentResumedSession(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", relaytest.Script{Resumed: &relaytest.Script{EHLOInTLS: relaytest.Reply{Do: relaytest.Silence}}})
	e := engine(t, w, routeTo(h), func(o *Options) { o.HandshakeTimeout, o.CommandTimeout = time.Second, time.Minute })
	deliverOne(t, e, modeT, "tls")
	hangUp(t, h)
	if r := deliverOne(t, e, modeT, "tls"); r.Attempt.Took > 30*time.Second {
		t.Errorf("took %s", r.Attempt.Took)
	}
}

// TestReopenedWithTicket: a session that replaces one that may carry no more is
// opened without a ticket as well, where a ticket breaks it.
func TestReopenedWithTicket(t *testing.T) {
	w := relaytest.Start(t)
	for name, broken := range map[string]relaytest.Script{
		"EHLO": {EHLOInTLS: relaytest.Reply{Do: relaytest.Close}},
		"MAIL": {Mail: relaytest.Reply{Code: 554}},
	} {
		script := relaytest.Script{KeywordsInTLS: []string{"LIMITS MAILMAX=1 RCPTMAX=1"}, Resumed: &broken}
		h := w.Host(t, "mx1.example.test", script)
		r := engine(t, w, routeTo(h)).Deliver(context.Background(), jobTo(t, modeT, "a@example.test", "b@example.test"))
		if r.Outcomes[0].Failure != nil || r.Outcomes[1].Failure != nil || h.Accepted() != 2 {
			t.Errorf("%s: %+v", name, r.Outcomes)
		}
	}
}

// TestStoppedOverTicket: what ends because the relay stops says nothing of tickets.
func TestStoppedOverTicket(t *testing.T) {
	w := relaytest.Start(t)
	silent := relaytest.Reply{Do: relaytest.Silence}
	for name, broken := range map[string]relaytest.Script{"EHLO": {EHLOInTLS: silent}, "MAIL": {Mail: silent}} {
		h := w.Host(t, "mx1.example.test", relaytest.Script{Resumed: &broken})
		e := engine(t, w, routeTo(h))
		deliverOne(t, e, modeT, "tls")
		hangUp(t, h)
		ctx := endWhen(h, func() bool {
			s := h.Sessions()
			n := len(s[len(s)-1].Commands)
			return len(s) == 2 && n > 0 && strings.HasPrefix(s[1].Commands[n-1].Line, name) && s[1].Commands[n-1].TLS
		})
		if r := e.Deliver(ctx, jobTo(t, modeT)); !r.Cut && how(r) != "defer" || e.client.Profiles.NoTickets.Has(h.Addr()) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
