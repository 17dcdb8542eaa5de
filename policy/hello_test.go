package policy

import (
	"testing"

	"tlsrelay/events"
)

// Row C8r: what fails where a session ticket was offered proves nothing, and is
// tried again without one, whatever it would have been otherwise.
func TestTicketsProveNothing(t *testing.T) {
	o, req, valid := theColumns()
	resumed := func(v Version, faults ...events.Reason) *Session {
		s := tlsSession(v, faults...)
		s.Resumed = true
		return s
	}
	hs := func(f Fault, alert uint8) Observed {
		return Observed{Stage: StageHandshake, Fault: f, Alert: alert, Hello: FullHello}
	}
	second := func(f Fault, code int) Observed {
		return Observed{Stage: StageEHLOTLS, Fault: f, Code: code, Hello: FullHello, TLS: tlsSession(TLS13)}
	}
	mail := func(f Fault, code int) Observed {
		return Observed{Stage: StageMail, FirstMail: true, Fault: f, Code: code, Hello: FullHello, TLS: resumed(TLS12)}
	}
	for _, c := range []struct {
		name   string
		seen   Observed
		reason events.Reason
	}{
		{"handshake closed", hs(Closed, 0), events.TLSClosed},
		{"handshake silent", hs(Timeout, 0), events.TLSTimeout},
		{"handshake not TLS", hs(NotTLS, 0), events.TLSNotTLS},
		{"alert 40", hs(Alert, 40), events.TLSHandshake},
		{"alert 70", hs(Alert, 70), events.TLSVersion},
		{"alert 112", hs(Alert, 112), events.TLSHandshake},
		{"alert 116", hs(Alert, 116), events.ClientCertRequired},
		{"our limit", hs(LocalLimit, 0), events.TLSLocalLimit},
		{"unknown", hs(NoFault, 0), events.TLSHandshake},
		{"EHLO closed", second(Closed, 0), events.TLSClosed},
		{"EHLO silent", second(Timeout, 0), events.TLSTimeout},
		{"EHLO 554", second(NoFault, 554), events.EHLOFail},
		{"EHLO 421", second(NoFault, 421), events.EHLOFail},
		{"EHLO 501", second(NoFault, 501), events.NameRefused},
		{"client certificate on first read", second(ClientCert, 0), events.ClientCertRequired},
		{"MAIL closed", mail(Closed, 0), events.SessionLost},
		{"MAIL silent", mail(Timeout, 0), events.SessionLost},
		{"MAIL 554", mail(NoFault, 554), events.ReplyPerm},
		{"MAIL 421", mail(NoFault, 421), events.ReplyTemp},
	} {
		c.seen.Ticket = true
		for column, d := range map[string]Decision{"O": o, "T": req, "V": valid} {
			want := Verdict{Row: "C8r", Action: RetryNoTicket, Class: Unreachable, Reason: c.reason}
			if got := d.Judge(c.seen); got != want {
				t.Errorf("%s/%s: %+v, want %+v", c.name, column, got, want)
			}
			without := c.seen
			without.Ticket, without.FirstMail = false, false
			if got := d.Judge(without); got.Row == "C8r" {
				t.Errorf("%s/%s: %+v without a ticket", c.name, column, got)
			}
		}
	}

	// An old certificate comes with an old ticket.
	old := Observed{Stage: StageReady, Ticket: true, TLS: resumed(TLS13, events.CertExpired)}
	if v := valid.Judge(old); v.Row != "C8r" || v.Reason != events.CertExpired {
		t.Errorf("%+v", v)
	}
	if v := req.Judge(old); v.Action != Proceed {
		t.Errorf("%+v", v)
	}
	for name, seen := range map[string]Observed{
		"a declined ticket, another certificate": {Stage: StageReady, Ticket: true, TLS: tlsSession(TLS13, events.CertExpired)},
		"a declined ticket, MAIL refused":        {Stage: StageMail, FirstMail: true, Ticket: true, Code: 550, TLS: tlsSession(TLS13)},
		"a later MAIL":                           {Stage: StageMail, Ticket: true, Fault: Closed, TLS: resumed(TLS13)},
		"no authentic MX":                        {Stage: StageReady, Ticket: true, TLS: resumed(TLS13), RequireTLS: true},
		"a downgrade":                            {Stage: StageHandshake, Ticket: true, Fault: Downgrade, Hello: FullHello},
	} {
		d := valid
		if name == "no authentic MX" {
			d = Sender{RequireTLS: true}.Demands().On(Facts{})
		}
		if v := d.Judge(seen); v.Action == RetryNoTicket {
			t.Errorf("%s: %+v", name, v)
		}
	}
	// A ticket that was declined breaks nothing but what came of offering it.
	seen := Observed{Stage: StageMail, FirstMail: true, Ticket: true, Fault: Closed, TLS: tlsSession(TLS13)}
	if v := req.Judge(seen); v.Action != RetryNoTicket {
		t.Errorf("%+v", v)
	}
}

func TestJudgeAddress(t *testing.T) {
	c1 := Verdict{Row: "C1", Action: Next, Class: Conclusive, Reason: events.TLSVersion}
	c2 := Verdict{Row: "C2", Action: RetryCompat, Class: Conclusive, Reason: events.TLSHandshake}
	b6 := Verdict{Row: "B6", Action: RetryCompat, Class: Inconclusive, Reason: events.TLSClosed}
	x := Verdict{Row: "B5", Action: Next, Class: Suspicious, Reason: events.StartTLSInjection}
	u := Verdict{Row: "A1", Action: Next, Class: Unreachable, Reason: events.ConnectFail}
	for _, c := range []struct {
		name  string
		tried []Verdict
		want  string
	}{
		{"one", []Verdict{c1}, "C1"},
		{"the last", []Verdict{c2, u}, "A1"},
		{"the compat hello has an upper bound", []Verdict{c2, c1}, "C2"},
		{"what may pass stands", []Verdict{b6, c1}, "B6"},
		{"also before a refusal", []Verdict{b6, c2}, "B6"},
		{"tampering stands", []Verdict{x, c2}, "B5"},
		{"tampering last", []Verdict{b6, x}, "B5"},
	} {
		if got := JudgeAddress(c.tried); got.Row != c.want || got.Action != Next {
			t.Errorf("%s: %+v, want row %s", c.name, got, c.want)
		}
	}
}

func TestProbesVersion(t *testing.T) {
	hs := func(h Hello, f Fault, alert uint8) Observed {
		return Observed{Stage: StageHandshake, StartTLS: Offered, Hello: h, Fault: f, Alert: alert}
	}
	closed := hs(FullHello, Closed, 0)
	o, req, valid := theColumns()
	for _, c := range []struct {
		name  string
		d     Decision
		shown []Observed
		want  bool
	}{
		{"closed twice", req, []Observed{closed, hs(CompatHello, Closed, 0)}, true},
		{"the same under V", valid, []Observed{closed, hs(CompatHello, Closed, 0)}, true},
		{"alert 40 twice", req, []Observed{hs(FullHello, Alert, 40), hs(CompatHello, Alert, 40)}, true},
		{"alert 80 twice", req, []Observed{hs(FullHello, Alert, 80), hs(CompatHello, Alert, 80)}, true},
		{"compat first, as remembered", req, []Observed{hs(CompatHello, Closed, 0), closed}, true},
		{"the compat hello's version refused", req, []Observed{closed, hs(CompatHello, Alert, 70)}, true},
		{"nothing demanded", o, []Observed{closed, hs(CompatHello, Closed, 0)}, false},
		{"no version demanded", Sender{RequireTLS: true}.Demands().On(Facts{}), []Observed{closed, hs(CompatHello, Closed, 0)}, false},
		{"one hello", req, []Observed{closed}, false},
		{"silent", req, []Observed{closed, hs(CompatHello, Timeout, 0)}, false},
		{"not TLS", req, []Observed{closed, hs(CompatHello, NotTLS, 0)}, false},
		{"a clear word", req, []Observed{hs(FullHello, Alert, 70)}, false},
		{"our limit", req, []Observed{closed, hs(CompatHello, LocalLimit, 0)}, false},
		{"the canary", req, []Observed{closed, hs(CompatHello, Downgrade, 0)}, false},
		{"closed before the 220", req, []Observed{{Stage: StageStartTLS, Fault: Closed}, {Stage: StageStartTLS, Fault: Closed}}, false},
		{"then no connection", req, []Observed{closed, {Stage: StageConnect, Fault: NoConnect}}, false},
	} {
		if got := c.d.ProbesVersion(c.shown); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestJudgeProbe(t *testing.T) {
	_, req, _ := theColumns() // floor 1.1
	closed := Verdict{Row: "B6", Action: Next, Class: Inconclusive, Reason: events.TLSClosed, Failed: Demand{Requirement: Encryption, Source: FromAccount}}
	refused := closed
	refused.Row, refused.Class, refused.Reason = "C2", Conclusive, events.TLSHandshake
	may := refused
	may.Class = Inconclusive
	old := Verdict{Row: "C1", Action: Next, Class: Conclusive, Reason: events.TLSVersion, Failed: Demand{Requirement: MinimumVersion, Source: FromAccount, Version: TLS11}}
	hs := func(f Fault, alert uint8, s *Session) Observed {
		return Observed{Stage: StageHandshake, Hello: ProbeHello, Fault: f, Alert: alert, TLS: s}
	}
	for _, c := range []struct {
		name           string
		seen           Observed
		stands, result Verdict
	}{
		{"below the floor", hs(NoFault, 0, tlsSession(TLS10)), closed, old},
		{"below the floor after alert 40", hs(NoFault, 0, tlsSession(TLS10)), refused, old},
		{"at the floor", hs(NoFault, 0, tlsSession(TLS11)), closed, closed},
		{"above the floor", hs(NoFault, 0, tlsSession(TLS13)), refused, may},
		{"closed as well", hs(Closed, 0, nil), closed, closed},
		{"silent", hs(Timeout, 0, nil), refused, refused},
		{"alert 40 as well", hs(Alert, 40, nil), closed, closed},
		{"older than that", hs(Alert, 70, nil), closed, old},
		{"busy now", Observed{Stage: StageGreeting, Code: 421}, refused, refused},
		{"no STARTTLS now", Observed{Stage: StageReady, StartTLS: NotOffered}, closed, closed},
	} {
		if got := req.JudgeProbe(c.seen, c.stands); got != c.result {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.result)
		}
		if v := req.Judge(c.seen); v.Action == Proceed {
			t.Errorf("%s: a probe goes on to MAIL", c.name)
		}
	}
	if v := req.JudgeProbe(hs(Downgrade, 0, nil), closed); v.Class != Suspicious {
		t.Errorf("%+v", v)
	}
}
