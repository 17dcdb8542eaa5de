package deliver

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"testing"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/relaytest"
)

// cell is one cell of the decision table (policy/rows.go) as a host plays it: the
// message's fate, and the verdict on the host with its reason. status is that of a
// failure.
type cell struct {
	fate   string // tls, clear, block, defer, bounce
	row    string
	class  policy.Evidence
	reason events.Reason
	status string
}

func delivers(fate, row string) cell { return cell{fate, row, policy.OK, "", ""} }

// blocks: the host is conclusive, and it is the only one.
func blocks(row string, r events.Reason, status string) cell {
	return cell{"block", row, policy.Conclusive, r, status}
}

func defers(row string, c policy.Evidence, r events.Reason, status string) cell {
	return cell{"defer", row, c, r, status}
}

// fallsBack: TLS fails that way, then phase 2 delivers in clear (CLR2).
func fallsBack(row string, c policy.Evidence, r events.Reason) cell {
	return cell{"clear", row, c, r, ""}
}

// line is one line of a table with its three columns.
type line struct {
	name    string
	script  relaytest.Script
	hasty   bool // the host is silent at some point
	o, t, v cell
}

func TestMatrix(t *testing.T) {
	w := relaytest.Start(t)
	for _, l := range matrix(t, w) {
		runLine(t, w, l)
	}
}

// matrix gives the lines; TestMatrixIsTheTable holds them to the rows of the
// decision table.
func matrix(t *testing.T, w *relaytest.World) []line {
	const (
		c = policy.Conclusive
		i = policy.Inconclusive
		u = policy.Unreachable
		x = policy.Suspicious
	)
	same := func(l line, all cell) line { l.o, l.t, l.v = all, all, all; return l }
	demand := func(l line, o, tv cell) line { l.o, l.t, l.v = o, tv, tv; return l }
	reply := func(code int, text string) relaytest.Reply { return relaytest.Reply{Code: code, Text: text} }
	after := func(tl relaytest.TLS) relaytest.Script { return relaytest.Script{TLS: tl} }

	// asking is a host that asks for a client certificate and would do without.
	asking := func(maximum uint16) relaytest.TLS {
		cert, err := w.CA.Issue(relaytest.Cert{Names: []string{"mx1.example.test"}})
		if err != nil {
			t.Fatal(err)
		}
		return relaytest.TLS{Config: &tls.Config{
			Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert, MaxVersion: maximum,
		}}
	}

	lines := []line{
		same(line{name: "A1/silent", script: relaytest.Script{Greeting: relaytest.Reply{Do: relaytest.Silence}}, hasty: true},
			defers("A1", u, events.GreetingFail, "4.4.1")),
		same(line{name: "A1/close", script: relaytest.Script{Greeting: relaytest.Reply{Do: relaytest.Close}}},
			defers("A1", u, events.GreetingFail, "4.4.1")),
		same(line{name: "A2/421", script: relaytest.Script{Greeting: reply(421, "4.3.2 busy")}},
			defers("A2", u, events.GreetingFail, "4.4.1")),
		same(line{name: "A2/450", script: relaytest.Script{Greeting: reply(450, "later")}},
			defers("A2", u, events.GreetingFail, "4.4.1")),
		same(line{name: "A3", script: relaytest.Script{Greeting: reply(554, "5.7.1 go away")}},
			cell{"bounce", "A3", u, events.GreetingFail, "5.7.1"}),
		demand(line{name: "A4", script: relaytest.Script{NoTLS: true}},
			delivers("clear", "A4"), blocks("A4", events.StartTLSNotOffered, "5.7.10")),
		demand(line{name: "A5/500", script: relaytest.Script{NoTLS: true, EHLO: reply(500, "what?")}},
			delivers("clear", "A4"), blocks("A5", events.EHLOUnsupported, "5.7.10")),
		demand(line{name: "A5/502", script: relaytest.Script{NoTLS: true, EHLO: reply(502, "what?")}},
			delivers("clear", "A4"), blocks("A5", events.EHLOUnsupported, "5.7.10")),
		same(line{name: "A7/451", script: relaytest.Script{EHLO: reply(451, "later")}},
			defers("A7", u, events.EHLOFail, "4.4.1")),
		same(line{name: "A7/421", script: relaytest.Script{EHLO: reply(421, "later")}},
			defers("A7", u, events.EHLOFail, "4.4.1")),
		demand(line{name: "A8/row-of-X", script: relaytest.Script{StartTLSAs: "XXXXXXXA"}},
			delivers("clear", "A8"), defers("A8", x, events.StartTLSMasked, "4.7.5")),
		demand(line{name: "A8/letters", script: relaytest.Script{StartTLSAs: "STARTTLX"}},
			delivers("clear", "A8"), defers("A8", x, events.StartTLSMasked, "4.7.5")),

		demand(line{name: "B1/454", script: relaytest.Script{StartTLS: reply(454, "4.7.0 not now")}},
			fallsBack("B1", i, events.StartTLSTempfail), defers("B1", i, events.StartTLSTempfail, "4.7.4")),
		same(line{name: "B2", script: relaytest.Script{StartTLS: reply(421, "bye")}},
			defers("B2", u, events.StartTLSTempfail, "4.4.1")),
		demand(line{name: "B4/250", script: relaytest.Script{StartTLS: reply(250, "ok")}},
			fallsBack("B4", i, events.StartTLSTempfail), defers("B4", i, events.StartTLSTempfail, "4.7.4")),
		demand(line{name: "B4/354", script: relaytest.Script{StartTLS: reply(354, "ok")}},
			fallsBack("B4", i, events.StartTLSTempfail), defers("B4", i, events.StartTLSTempfail, "4.7.4")),
		same(line{name: "B5", script: relaytest.Script{Inject: "250 2.1.0 Ok\r\n"}},
			defers("B5", x, events.StartTLSInjection, "4.7.5")),
		demand(line{name: "B6/close", script: after(relaytest.TLS{Do: relaytest.Close})},
			fallsBack("B6", i, events.TLSClosed), defers("B6", i, events.TLSClosed, "4.7.5")),
		demand(line{name: "B6/reset", script: after(relaytest.TLS{Do: relaytest.Reset})},
			fallsBack("B6", i, events.TLSClosed), defers("B6", i, events.TLSClosed, "4.7.5")),
		same(line{name: "B6/large-hello-only", script: after(relaytest.TLS{Do: relaytest.Close, HelloOver: 1000})},
			delivers("tls", "ENC")),
		demand(line{name: "B7", script: after(relaytest.TLS{Do: relaytest.Silence}), hasty: true},
			fallsBack("B7", i, events.TLSTimeout), defers("B7", i, events.TLSTimeout, "4.7.5")),
		demand(line{name: "B8", script: after(relaytest.TLS{Garbage: "220 2.0.0 What did you say?\r\n"})},
			fallsBack("B8", i, events.TLSNotTLS), defers("B8", i, events.TLSNotTLS, "4.7.5")),

		demand(line{name: "C1/alert-70", script: after(relaytest.TLS{Alert: 70})},
			fallsBack("C1", c, events.TLSVersion), blocks("C1", events.TLSVersion, "5.7.4")),
		demand(line{name: "C2/alert-40", script: after(relaytest.TLS{Alert: 40})},
			fallsBack("C2", c, events.TLSHandshake), blocks("C2", events.TLSHandshake, "5.7.5")),
		demand(line{name: "C2/alert-71", script: after(relaytest.TLS{Alert: 71})},
			fallsBack("C2", c, events.TLSHandshake), blocks("C2", events.TLSHandshake, "5.7.5")),
		same(line{name: "C2/large-hello-only", script: after(relaytest.TLS{Alert: 40, HelloOver: 1000})},
			delivers("tls", "ENC")),
		demand(line{name: "C5/1.3", script: after(relaytest.TLS{ClientCert: true})},
			fallsBack("C5", c, events.ClientCertRequired), blocks("C5", events.ClientCertRequired, "5.7.5")),
		demand(line{name: "C5/1.2", script: after(relaytest.TLS{ClientCert: true, MaxVersion: tls.VersionTLS12})},
			fallsBack("C5", c, events.ClientCertRequired), blocks("C5", events.ClientCertRequired, "5.7.5")),
		// To be asked for a certificate proves nothing; only an alert is an answer.
		demand(line{name: "C5/asked-then-close/1.3", script: relaytest.Script{TLS: asking(0), EHLOInTLS: relaytest.Reply{Do: relaytest.Close}}},
			fallsBack("C8", i, events.TLSClosed), defers("C8", i, events.TLSClosed, "4.7.5")),
		demand(line{name: "C5/asked-then-reset/1.2", script: relaytest.Script{TLS: asking(tls.VersionTLS12), EHLOInTLS: relaytest.Reply{Do: relaytest.Reset}}},
			fallsBack("C8", i, events.TLSClosed), defers("C8", i, events.TLSClosed, "4.7.5")),
		demand(line{name: "C6/unparseable", script: after(relaytest.TLS{Cert: &relaytest.Cert{Names: []string{"mx1.example.test"}, Unparseable: true}})},
			fallsBack("C6", c, events.TLSLocalLimit), blocks("C6", events.TLSLocalLimit, "5.7.5")),
		demand(line{name: "C6/authorities/1.2", script: after(authorities(t, w.CA, tls.VersionTLS12))},
			fallsBack("C6", c, events.TLSLocalLimit), blocks("C6", events.TLSLocalLimit, "5.7.5")),
		demand(line{name: "C6/authorities/1.3", script: after(authorities(t, w.CA, tls.VersionTLS13))},
			fallsBack("C6", c, events.TLSLocalLimit), blocks("C6", events.TLSLocalLimit, "5.7.5")),
		demand(line{name: "C6/chain/1.2", script: after(longChain(t, w.CA, tls.VersionTLS12))},
			fallsBack("C6", c, events.TLSLocalLimit), blocks("C6", events.TLSLocalLimit, "5.7.5")),
		demand(line{name: "C6/chain/1.3", script: after(longChain(t, w.CA, tls.VersionTLS13))},
			fallsBack("C6", c, events.TLSLocalLimit), blocks("C6", events.TLSLocalLimit, "5.7.5")),
		demand(line{name: "C8/close", script: relaytest.Script{EHLOInTLS: relaytest.Reply{Do: relaytest.Close}}},
			fallsBack("C8", i, events.TLSClosed), defers("C8", i, events.TLSClosed, "4.7.5")),
		demand(line{name: "C8/500", script: relaytest.Script{EHLOInTLS: reply(500, "what?")}},
			fallsBack("C8", i, events.EHLOFail), defers("C8", i, events.EHLOFail, "4.7.5")),
		same(line{name: "C9/fewer-keywords", script: relaytest.Script{KeywordsInTLS: []string{"8BITMIME"}}},
			delivers("tls", "ENC")),
		same(line{name: "C10", script: relaytest.Script{KeywordsInTLS: []string{"PIPELINING", "STARTTLS"}}},
			delivers("tls", "ENC")),
		same(line{name: "C11/MAIL", script: relaytest.Script{Mail: relaytest.Reply{Do: relaytest.Close}, Keywords: []string{}}},
			defers("C11", u, events.SessionLost, "4.4.2")),
		same(line{name: "C11/RCPT", script: relaytest.Script{Rcpt: relaytest.Reply{Do: relaytest.Reset}, Keywords: []string{}}},
			defers("C11", u, events.SessionLost, "4.4.2")),
		same(line{name: "downgrade", script: after(relaytest.TLS{Downgrade: true})},
			defers("C3", x, events.TLSDowngrade, "4.7.5")),
		same(line{name: "ENC", script: relaytest.Script{}}, delivers("tls", "ENC")),

		// SSLv3-only: the ServerHello of one, and the alert that others send.
		demand(line{name: "SSLv3/alert", script: after(relaytest.TLS{Raw: []byte{21, 3, 0, 0, 2, 2, 40}})},
			fallsBack("C2", c, events.TLSHandshake), blocks("C2", events.TLSHandshake, "5.7.5")),
		demand(line{name: "SSLv3/hello", script: after(relaytest.TLS{Raw: ssl3Hello()})},
			fallsBack("C1", c, events.TLSVersion), blocks("C1", events.TLSVersion, "5.7.4")),
		// DHE-only: no suite in common.
		demand(line{name: "DHE-only/alert", script: after(relaytest.TLS{Raw: []byte{21, 3, 3, 0, 2, 2, 40}})},
			fallsBack("C2", c, events.TLSHandshake), blocks("C2", events.TLSHandshake, "5.7.5")),
		demand(line{name: "DHE-only/chosen", script: after(relaytest.TLS{Raw: dheHello()})},
			fallsBack("C6", c, events.TLSLocalLimit), blocks("C6", events.TLSLocalLimit, "5.7.5")),
	}
	for name, script := range map[string]relaytest.Script{
		"501":          {EHLO: reply(501, "5.5.4 Invalid domain name")},
		"504":          {EHLO: reply(504, "5.5.2 need fully-qualified hostname")},
		"501/no-TLS":   {EHLO: reply(501, "Syntactically invalid EHLO argument"), NoTLS: true},
		"504/in-TLS":   {EHLOInTLS: reply(504, "5.5.2 need fully-qualified hostname")},
		"501/in-TLS":   {EHLOInTLS: reply(501, "who?"), TLS: relaytest.TLS{MaxVersion: tls.VersionTLS12}},
		"HELO-refused": {EHLO: reply(502, "what?"), HELO: reply(501, "who?"), NoTLS: true},
	} {
		l := same(line{name: "A5n/" + name, script: script}, defers("A5n", u, events.NameRefused, "4.4.1"))
		if name == "HELO-refused" { // under a demand HELO is not said
			l.t = blocks("A5", events.EHLOUnsupported, "5.7.10")
			l.v = l.t
		}
		lines = append(lines, l)
	}
	for name, raw := range map[string]string{"refused": "250-mx1.example.test\r\n502 what?\r\n", "taken": "502-what?\r\n250 mx1.example.test\r\n", "twice": "500-what?\r\n502 what?\r\n"} {
		lines = append(lines, same(line{name: "A6/mixed/" + name, script: relaytest.Script{EHLO: relaytest.Reply{Raw: raw}}},
			defers("A6", i, events.EHLOFail, "4.7.5")))
	}
	lines = append(lines,
		demand(line{name: "B4/mixed", script: relaytest.Script{StartTLS: relaytest.Reply{Raw: "454-not now\r\n502 what?\r\n"}}},
			fallsBack("B4", i, events.StartTLSTempfail), defers("B4", i, events.StartTLSTempfail, "4.7.4")),
		demand(line{name: "C8/mixed", script: relaytest.Script{EHLOInTLS: relaytest.Reply{Raw: "250-mx1.example.test\r\n502 what?\r\n"}}},
			fallsBack("C8", i, events.EHLOFail), defers("C8", i, events.EHLOFail, "4.7.5")))
	for _, code := range []int{503, 505, 530, 550, 554} {
		lines = append(lines, same(line{name: fmt.Sprint("A6/", code), script: relaytest.Script{EHLO: reply(code, "no")}},
			defers("A6", u, events.EHLOFail, "4.4.1")))
	}
	for _, code := range []string{"500", "501", "502", "503", "504", "530", "550", "554"} {
		lines = append(lines, demand(line{name: "B3/" + code, script: relaytest.Script{StartTLS: relaytest.Reply{Raw: code + " 5.7.0 no\r\n"}}},
			fallsBack("B3", c, events.StartTLSRefused), blocks("B3", events.StartTLSRefused, "5.7.10")))
	}
	for name, alert := range map[string]uint8{"47": 47, "50": 50, "51": 51, "80": 80, "90": 90} {
		lines = append(lines, demand(line{name: "C3/alert-" + name, script: after(relaytest.TLS{Alert: alert})},
			fallsBack("C3", i, events.TLSHandshake), defers("C3", i, events.TLSHandshake, "4.7.5")))
	}
	// The certificate that comes without a server name is judged like any other.
	other := &relaytest.Cert{Names: []string{"other.test"}}
	for version, highest := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": 0} {
		lines = append(lines,
			same(line{name: "C4/with-SNI-only/" + version, script: after(relaytest.TLS{Alert: 112, WithSNI: true, MaxVersion: highest})},
				delivers("tls", "ENC")),
			line{name: "C4/with-SNI-only/wrong-name/" + version, script: after(relaytest.TLS{Alert: 112, WithSNI: true, Cert: other, MaxVersion: highest}),
				o: delivers("tls", "C7"), t: delivers("tls", "C7"), v: blocks("C7", events.CertName, "5.7.5")})
	}
	lines = append(lines, demand(line{name: "C4/always", script: after(relaytest.TLS{Alert: 112})},
		fallsBack("C4", c, events.TLSHandshake), blocks("C4", events.TLSHandshake, "5.7.5")))
	// Hosts that are too old for the floor, and how they say so where they do not
	// send alert 70; in mode O their version is good enough.
	for name, tl := range map[string]relaytest.TLS{
		"closes":   {Do: relaytest.Close},
		"resets":   {Do: relaytest.Reset},
		"alert-0":  {Raw: []byte{21, 3, 1, 0, 2, 1, 0}},
		"alert-40": {Alert: 40},
		"alert-71": {Alert: 71},
		"alert-80": {Alert: 80},
	} {
		tl.MaxVersion, tl.VersionOver = tls.VersionTLS10, tls.VersionTLS10
		lines = append(lines, demand(line{name: "C1/too-old/" + name, script: after(tl)},
			delivers("tls", "ENC"), blocks("C1", events.TLSVersion, "5.7.4")))
	}

	return lines
}

// runLine plays one line in every column, each against a host of its own.
func runLine(t *testing.T, w *relaytest.World, l line) {
	for _, col := range []struct {
		name   string
		sender policy.Sender
		want   cell
	}{{"O", modeO, l.o}, {"T", modeT, l.t}, {"V", modeV, l.v}} {
		t.Run(l.name+"/"+col.name, func(t *testing.T) {
			t.Parallel()
			h := w.Host(t, "mx1.example.test", l.script)
			check(t, w, h, col.sender, col.want, l.hasty)
			h.Close()
		})
	}
}

// check delivers one message to h alone and compares everything a cell says.
func check(t *testing.T, w *relaytest.World, h *relaytest.Host, s policy.Sender, want cell, short bool) relay.Result {
	t.Helper()
	var change []func(*Options)
	if short {
		change = append(change, hasty)
	}
	e := engine(t, w, routeTo(h), change...)
	r := e.Deliver(context.Background(), jobTo(t, s))
	f := failureOf(r)
	ownWords(t, r)
	if got := how(r); got != want.fate {
		t.Errorf("message: %s (%+v), want %s", got, f, want.fate)
	}
	if !shown(r, want.row, want.class, want.reason) {
		t.Errorf("no verdict %s %s %q in %+v", want.row, want.class, want.reason, r.Attempt.Hosts)
	}
	if f.Status != want.status {
		t.Errorf("status %q, want %q", f.Status, want.status)
	}
	switch want.fate {
	case "block":
		if f.Reason != want.reason || !strings.HasPrefix(f.Reply.String(), events.TLSBlocked) || r.Attempt.Ruling != policy.Block {
			t.Errorf("block %+v, ruling %s", f, r.Attempt.Ruling)
		}
		if v := r.History.Violation; v.Failed.Source != policy.FromAccount || v.Failed.Requirement == "" {
			t.Errorf("the demand that failed is not named: %+v", v)
		}
	case "defer", "bounce":
		if f.Reason != want.reason || strings.HasPrefix(f.Reply.String(), events.TLSBlocked) {
			t.Errorf("failure %+v, want reason %s and not the phrase of a block", f, want.reason)
		}
	default:
		if h.Accepted() != 1 {
			t.Errorf("the host has %d messages", h.Accepted())
		}
	}
	demanding := s.Account.RequireTLS || s.Account.RequireValidCert
	if (demanding || want.fate != "clear") && h.LeakedInClear() && want.row != "A4" {
		t.Errorf("a transaction travelled in clear: %v", h.ClearCommands())
	}
	if demanding && h.LeakedInClear() {
		t.Errorf("a transaction travelled in clear under a demand: %v", h.ClearCommands())
	}
	if b := h.Breaches(); len(b) > 0 {
		t.Errorf("breaches of protocol: %v", b)
	}
	return r
}

// ssl3Hello is the ServerHello of a host that chose SSL 3.0.
func ssl3Hello() []byte { return serverHello(0x0300, 0x002f) }

// dheHello is that of one that insists on TLS_DHE_RSA_WITH_AES_128_CBC_SHA.
func dheHello() []byte { return serverHello(tls.VersionTLS12, 0x0033) }

func serverHello(version, suite uint16) []byte {
	hello := append([]byte{byte(version >> 8), byte(version)}, make([]byte, 32)...) // random
	hello = append(hello, 0, byte(suite>>8), byte(suite), 0)                        // no session id; null compression
	msg := append([]byte{2, 0, 0, byte(len(hello))}, hello...)
	return append([]byte{22, byte(version >> 8), byte(version), 0, byte(len(msg))}, msg...)
}

// TestConnectRefused is row A1 for a host that is not there at all.
func TestConnectRefused(t *testing.T) {
	w := relaytest.Start(t)
	for name, s := range map[string]policy.Sender{"O": modeO, "T": modeT, "V": modeV} {
		t.Run("A1/refused/"+name, func(t *testing.T) {
			route := routeTo()
			route.Hosts = append(route.Hosts, hostAt("mx1.example.test", w.AddDeadHost("mx1.example.test")))
			r := engine(t, w, route).Deliver(context.Background(), jobTo(t, s))
			ownWords(t, r)
			f := failureOf(r)
			if how(r) != "defer" || f.Status != "4.4.1" || !shown(r, "A1", policy.Unreachable, events.ConnectFail) || r.Feedback != relay.Trouble {
				t.Errorf("%+v %+v", f, r)
			}
			if r.History.Violated() {
				t.Error("an unreachable host opened the policy window")
			}
		})
	}
}

// TestStartTLSFirst is row C12: TLS fails, and in clear the host insists on it.
func TestStartTLSFirst(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", relaytest.Script{TLS: relaytest.TLS{Alert: 80}, NeedTLS: true})
	r := engine(t, w, routeTo(h)).Deliver(context.Background(), jobTo(t, modeO))
	if how(r) != "defer" || !shown(r, "C12", policy.Inconclusive, events.StartTLSTempfail) {
		t.Errorf("%+v", r)
	}
}

// TestStartTLSFirstLater is the same where the host says so only of the
// recipient, or of the message.
func TestStartTLSFirstLater(t *testing.T) {
	first := relaytest.Reply{Code: 530, Text: "5.7.0 Must issue a STARTTLS command first"}
	for name, script := range map[string]relaytest.Script{
		"RCPT": {Rcpt: first},
		"DATA": {Data: first},
		"end":  {End: first},
		"one":  {Rcpts: map[string]relaytest.Reply{"bob@example.test": first}},
	} {
		script.TLS.Alert = 80
		for way, keywords := range ways {
			if name == "DATA" && slices.Contains(keywords, "CHUNKING") {
				continue
			}
			script.Keywords = keywords
			t.Run(name+"/"+way, func(t *testing.T) {
				w := relaytest.Start(t)
				h := w.Host(t, "mx1.example.test", script)
				r := engine(t, w, routeTo(h)).Deliver(context.Background(), jobTo(t, modeO, "bob@example.test", "eve@example.test"))
				f := failureOf(r)
				if how(r) != "defer" || name == "one" && (f.Reason != events.StartTLSTempfail || f.Status != "4.7.4") {
					t.Errorf("%s: %+v", how(r), f)
				}
				if name != "one" && !shown(r, "C12", policy.Inconclusive, events.StartTLSTempfail) {
					t.Errorf("%+v", r.Attempt)
				}
				if other := r.Outcomes[1].Failure; (name == "one") != (other == nil) {
					t.Errorf("the other recipient: %+v", other)
				}
			})
		}
	}
}

// TestCertificates is row C7: O and T deliver whatever comes, V refuses with the
// reason.
func TestCertificates(t *testing.T) {
	const mx = "mx1.example.test"
	named := func(c relaytest.Cert) *relaytest.Cert { c.Names = append(c.Names, mx); return &c }
	w := relaytest.Start(t)
	for _, c := range []struct {
		name   string
		cert   *relaytest.Cert
		reason events.Reason // "" for a good one
	}{
		{"good", named(relaytest.Cert{}), ""},
		{"good-intermediate", named(relaytest.Cert{Intermediate: true}), ""},
		{"good-RSA", named(relaytest.Cert{Key: relaytest.KeyRSA2048}), ""},
		{"self-signed", named(relaytest.Cert{SelfSigned: true}), events.CertUntrusted},
		{"unknown-CA", named(relaytest.Cert{UnknownCA: true}), events.CertUntrusted},
		{"missing-intermediate", named(relaytest.Cert{MissingIntermediate: true}), events.CertUntrusted},
		{"expired", named(relaytest.Cert{Expired: true}), events.CertExpired},
		{"not-yet-valid", named(relaytest.Cert{NotYetValid: true}), events.CertNotYetValid},
		{"wrong-name", &relaytest.Cert{Names: []string{"other.test"}}, events.CertName},
		{"CN-only", &relaytest.Cert{CN: mx}, events.CertName},
		{"RSA-1024", named(relaytest.Cert{Key: relaytest.KeyRSA1024}), events.CertWeakKey},
		{"SHA-1", named(relaytest.Cert{SHA1: true}), events.CertWeakSig},
		{"wrong-usage", named(relaytest.Cert{WrongUsage: true}), events.CertUsage},

		// Which names match.
		{"recipient-domain", &relaytest.Cert{Names: []string{"example.test"}}, ""},
		{"wildcard", &relaytest.Cert{Names: []string{"*.example.test"}}, ""},
		{"wildcard-below", &relaytest.Cert{Names: []string{"*.mx1.example.test"}}, events.CertName},
		{"partial-wildcard", &relaytest.Cert{Names: []string{"mx*.example.test"}}, events.CertName},
	} {
		row := func(fate string) cell {
			if c.reason == "" {
				return delivers("tls", "ENC")
			}
			if fate == "block" {
				return blocks("C7", c.reason, "5.7.5")
			}
			return delivers("tls", "C7")
		}
		for _, col := range []struct {
			name   string
			sender policy.Sender
			want   cell
		}{{"O", modeO, row("tls")}, {"T", modeT, row("tls")}, {"V", modeV, row("block")}} {
			t.Run("cert/"+c.name+"/"+col.name, func(t *testing.T) {
				h := w.Host(t, mx, relaytest.Script{TLS: relaytest.TLS{Cert: c.cert}})
				r := check(t, w, h, col.sender, col.want, false)
				o := r.Outcomes[0]
				if o.Session.TLSVersion == "" || o.Session.CertErr != (c.reason != "") {
					t.Errorf("session told: %+v", o.Session)
				}
				h.Close()
			})
		}
	}
}

// TestAllFaultsAtOnce: every fault of a certificate is found, not the first.
func TestAllFaultsAtOnce(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", relaytest.Script{TLS: relaytest.TLS{Cert: &relaytest.Cert{
		Names: []string{"other.test"}, Expired: true, SelfSigned: true, WrongUsage: true, Key: relaytest.KeyRSA1024,
	}}})
	r := engine(t, w, routeTo(h)).Deliver(context.Background(), jobTo(t, modeV))
	want := []events.Reason{events.CertUntrusted, events.CertExpired, events.CertName, events.CertWeakKey, events.CertUsage}
	got := r.Attempt.Hosts[0].TLS.Cert.Faults
	if len(got) != len(want) {
		t.Fatalf("faults %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("faults %v, want %v", got, want)
		}
	}
}

// TestVersions is the grid of what a host speaks at best and the floor.
func TestVersions(t *testing.T) {
	w := relaytest.Start(t)
	versions := map[string]uint16{"none": 0, "1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
	for name, best := range versions {
		script := relaytest.Script{NoTLS: best == 0, TLS: relaytest.TLS{MaxVersion: best}}
		for col, least := range map[string]policy.Version{"O": 0, "T-1.1": policy.TLS11, "T-1.2": policy.TLS12, "T-1.3": policy.TLS13, "V-1.1": policy.TLS11, "V-1.2": policy.TLS12, "V-1.3": policy.TLS13} {
			t.Run("C1/version-"+name+"-host/"+col, func(t *testing.T) {
				s := floor(least)
				s.Account.RequireTLS = least != 0 && col[0] == 'T'
				s.Account.RequireValidCert = col[0] == 'V'
				want := delivers("tls", "ENC")
				switch {
				case best == 0 && least == 0:
					want = delivers("clear", "A4")
				case best == 0:
					want = blocks("A4", events.StartTLSNotOffered, "5.7.10")
				case best < uint16(least):
					want = blocks("C1", events.TLSVersion, "5.7.4")
				}
				h := w.Host(t, "mx1.example.test", script)
				r := check(t, w, h, s, want, false)
				if got := r.Outcomes[0].Session.TLSVersion; want.fate == "tls" && got != name {
					t.Errorf("version told %s, want %s", got, name)
				}
				h.Close()
			})
		}
	}
}
