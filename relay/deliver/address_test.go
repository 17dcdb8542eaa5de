package deliver

import (
	"context"
	"strings"
	"testing"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay/relaytest"
)

// TestVersionProbe: a host that is too old and does not say so is asked once more,
// on a connection that carries no mail, once in an attempt for each address.
func TestVersionProbe(t *testing.T) {
	old := relaytest.Script{TLS: relaytest.TLS{Do: relaytest.Close, VersionOver: 0x0302, MaxVersion: 0x0302}}
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", old)
	route := routeTo(h)
	route.Hosts = append(route.Hosts, hostAt("mx2.example.test", h.Addr()))
	r := deliverOne(t, engine(t, w, route), floor(policy.TLS12), "block")
	f := failureOf(r)
	if f.Status != "5.7.4" || f.Reason != events.TLSVersion || r.History.Violation.Failed.Requirement != policy.MinimumVersion {
		t.Errorf("%+v", f)
	}
	probes := 0
	for _, x := range r.Attempt.Hosts {
		if x.Hello == policy.ProbeHello {
			probes++
			if x.TLS == nil || x.TLS.Version != policy.TLS11 || x.Verdict.Row != "C1" {
				t.Errorf("%+v", x)
			}
		}
	}
	if probes != 1 || h.Connections() != 5 {
		t.Errorf("%d probes on %d connections", probes, h.Connections())
	}
	ctx, cancel := context.WithTimeout(context.Background(), relaytest.Patience)
	defer cancel()
	// The engine does not wait until the host has heard QUIT.
	if err := h.WaitFor(ctx, func() bool { return h.Open() == 0 }); err != nil {
		t.Fatal(err)
	}
	probe := h.Sessions()[2]
	if last := probe.Commands[len(probe.Commands)-1]; probe.Hello.MinVersion != 0x0301 || probe.Hello.Size > 600 || last.Line != "QUIT" || !last.TLS {
		t.Errorf("%+v", probe)
	}
	for _, c := range probe.Commands {
		if strings.HasPrefix(c.Line, "MAIL") {
			t.Error("a probe carried mail")
		}
	}
	if h.LeakedInClear() {
		t.Error("sent in clear")
	}
}

// TestVersionProbeProves: what the probe finds decides, and where it finds
// nothing, or nothing is demanded of the version, all is as without it.
func TestVersionProbeProves(t *testing.T) {
	type tls = relaytest.TLS
	script := func(t tls) relaytest.Script { return relaytest.Script{TLS: t} }
	down := relaytest.Script{Greeting: relaytest.Reply{Code: 421, Text: "busy"}}
	for name, c := range map[string]struct {
		sender  policy.Sender
		scripts []relaytest.Script
		fate    string
		reason  events.Reason
		status  string
		dials   int
	}{
		"recent enough":            {modeT, []relaytest.Script{script(tls{Alert: 40}), script(tls{Alert: 40}), complies}, "defer", events.TLSHandshake, "4.7.5", 3},
		"closes whatever comes":    {modeT, []relaytest.Script{otherwise}, "defer", events.TLSClosed, "4.7.5", 3},
		"refuses whatever comes":   {modeV, []relaytest.Script{script(tls{Alert: 40})}, "block", events.TLSHandshake, "5.7.5", 3},
		"busy by then":             {modeT, []relaytest.Script{script(tls{Alert: 40}), script(tls{Alert: 40}), down}, "block", events.TLSHandshake, "5.7.5", 3},
		"has the word for it then": {modeT, []relaytest.Script{otherwise, otherwise, script(tls{Alert: 70})}, "block", events.TLSVersion, "5.7.4", 3},
		"REQUIRETLS alone":         {policy.Sender{RequireTLS: true}, []relaytest.Script{script(tls{Alert: 40})}, "block", events.TLSHandshake, "5.7.10", 2},
		"silent the second time":   {modeT, []relaytest.Script{otherwise, script(tls{Do: relaytest.Silence})}, "defer", events.TLSClosed, "4.7.5", 2},
		"nothing demanded":         {modeO, []relaytest.Script{script(tls{Alert: 40})}, "clear", "", "", 3},
	} {
		t.Run(name, func(t *testing.T) {
			w := relaytest.Start(t)
			h := w.Host(t, "mx1.example.test", c.scripts...)
			r := deliverOne(t, engine(t, w, routeTo(h), hasty), c.sender, c.fate)
			if f := failureOf(r); f.Reason != c.reason || f.Status != c.status || h.Connections() != c.dials {
				t.Errorf("%d connections, %+v", h.Connections(), f)
			}
		})
	}
}
