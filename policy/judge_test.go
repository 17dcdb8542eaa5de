package policy

import (
	"testing"

	"tlsrelay/events"
	"tlsrelay/policy/domain"
)

// The decisions of the columns O, T and V of the table.
func theColumns() (o, t, v Decision) {
	f := Facts{Host: domain.MustParse("mx.example.test"), Recipient: domain.MustParse("example.test")}
	o = Sender{}.Demands().On(f)
	t = Sender{Account: Settings{RequireTLS: true}}.Demands().On(f)
	v = Sender{Account: Settings{RequireValidCert: true}}.Demands().On(f)
	return o, t, v
}

func tlsSession(v Version, faults ...events.Reason) *Session {
	return &Session{Version: v, ForwardSecret: true, Cert: Certificate{Faults: faults}}
}

// want is one cell: what happens, with which evidence and why.
type want struct {
	action Action
	class  Evidence
	reason events.Reason
	clear2 bool
}

func TestJudgeTable(t *testing.T) {
	o, req, valid := theColumns()
	next := func(c Evidence, r events.Reason) want { return want{Next, c, r, false} }
	clr2 := func(c Evidence, r events.Reason) want { return want{Next, c, r, true} }
	again := func(a Action, c Evidence, r events.Reason) want { return want{a, c, r, false} }
	againO := func(a Action, c Evidence, r events.Reason) want { return want{a, c, r, true} }
	ok := want{Proceed, OK, "", false}
	hs := func(f Fault, alert uint8, h Hello) Observed {
		return Observed{Stage: StageHandshake, StartTLS: Offered, Fault: f, Alert: alert, Hello: h}
	}
	stls := func(code int) Observed { return Observed{Stage: StageStartTLS, StartTLS: Offered, Code: code} }

	for _, c := range []struct {
		name    string
		row     string
		seen    Observed
		o, t, v want
	}{
		{"refused", "A1", Observed{Stage: StageConnect, Fault: NoConnect},
			next(Unreachable, events.ConnectFail), next(Unreachable, events.ConnectFail), next(Unreachable, events.ConnectFail)},
		{"no banner", "A1", Observed{Stage: StageGreeting, Fault: Timeout},
			next(Unreachable, events.GreetingFail), next(Unreachable, events.GreetingFail), next(Unreachable, events.GreetingFail)},
		{"greeting 421", "A2", Observed{Stage: StageGreeting, Code: 421},
			next(Unreachable, events.GreetingFail), next(Unreachable, events.GreetingFail), next(Unreachable, events.GreetingFail)},
		{"greeting 554", "A3", Observed{Stage: StageGreeting, Code: 554},
			next(Unreachable, events.GreetingFail), next(Unreachable, events.GreetingFail), next(Unreachable, events.GreetingFail)},
		{"no STARTTLS", "A4", Observed{Stage: StageReady, StartTLS: NotOffered},
			ok, next(Conclusive, events.StartTLSNotOffered), next(Conclusive, events.StartTLSNotOffered)},
		{"EHLO 502", "A5", Observed{Stage: StageEHLO, Code: 502},
			want{SayHELO, OK, "", false}, next(Conclusive, events.EHLOUnsupported), next(Conclusive, events.EHLOUnsupported)},
		{"EHLO 500", "A5", Observed{Stage: StageEHLO, Code: 500},
			want{SayHELO, OK, "", false}, next(Conclusive, events.EHLOUnsupported), next(Conclusive, events.EHLOUnsupported)},
		{"EHLO 501", "A5n", Observed{Stage: StageEHLO, Code: 501},
			next(Unreachable, events.NameRefused), next(Unreachable, events.NameRefused), next(Unreachable, events.NameRefused)},
		{"EHLO 504", "A5n", Observed{Stage: StageEHLO, Code: 504},
			next(Unreachable, events.NameRefused), next(Unreachable, events.NameRefused), next(Unreachable, events.NameRefused)},
		{"EHLO 502, HELO 501", "A5n", Observed{Stage: StageEHLO, HELO: true, Code: 501},
			next(Unreachable, events.NameRefused), next(Unreachable, events.NameRefused), next(Unreachable, events.NameRefused)},
		{"EHLO 502, HELO 502", "A6", Observed{Stage: StageEHLO, HELO: true, Code: 502},
			next(Unreachable, events.EHLOFail), next(Unreachable, events.EHLOFail), next(Unreachable, events.EHLOFail)},
		{"EHLO 502, HELO 450", "A7", Observed{Stage: StageEHLO, HELO: true, Code: 450},
			next(Unreachable, events.EHLOFail), next(Unreachable, events.EHLOFail), next(Unreachable, events.EHLOFail)},
		{"EHLO 503", "A6", Observed{Stage: StageEHLO, Code: 503},
			next(Unreachable, events.EHLOFail), next(Unreachable, events.EHLOFail), next(Unreachable, events.EHLOFail)},
		{"EHLO 505", "A6", Observed{Stage: StageEHLO, Code: 505},
			next(Unreachable, events.EHLOFail), next(Unreachable, events.EHLOFail), next(Unreachable, events.EHLOFail)},
		{"EHLO 550", "A6", Observed{Stage: StageEHLO, Code: 550},
			next(Unreachable, events.EHLOFail), next(Unreachable, events.EHLOFail), next(Unreachable, events.EHLOFail)},
		{"EHLO 450", "A7", Observed{Stage: StageEHLO, Code: 450},
			next(Unreachable, events.EHLOFail), next(Unreachable, events.EHLOFail), next(Unreachable, events.EHLOFail)},
		{"EHLO closed", "A7", Observed{Stage: StageEHLO, Fault: Closed},
			next(Unreachable, events.EHLOFail), next(Unreachable, events.EHLOFail), next(Unreachable, events.EHLOFail)},
		{"EHLO of mixed codes", "A6", Observed{Stage: StageEHLO, Code: 502, Mixed: true},
			next(Inconclusive, events.EHLOFail), next(Inconclusive, events.EHLOFail), next(Inconclusive, events.EHLOFail)},
		{"EHLO of mixed codes, the last 250", "A6", Observed{Stage: StageEHLO, Code: 250, Mixed: true},
			next(Inconclusive, events.EHLOFail), next(Inconclusive, events.EHLOFail), next(Inconclusive, events.EHLOFail)},
		{"masked", "A8", Observed{Stage: StageReady, StartTLS: Masked},
			ok, next(Suspicious, events.StartTLSMasked), next(Suspicious, events.StartTLSMasked)},

		{"454", "B1", stls(454),
			clr2(Inconclusive, events.StartTLSTempfail), next(Inconclusive, events.StartTLSTempfail), next(Inconclusive, events.StartTLSTempfail)},
		{"421", "B2", stls(421),
			next(Unreachable, events.StartTLSTempfail), next(Unreachable, events.StartTLSTempfail), next(Unreachable, events.StartTLSTempfail)},
		{"530", "B3", stls(530),
			clr2(Conclusive, events.StartTLSRefused), next(Conclusive, events.StartTLSRefused), next(Conclusive, events.StartTLSRefused)},
		{"250", "B4", stls(250),
			clr2(Inconclusive, events.StartTLSTempfail), next(Inconclusive, events.StartTLSTempfail), next(Inconclusive, events.StartTLSTempfail)},
		{"220 of mixed codes", "B4", Observed{Stage: StageStartTLS, StartTLS: Offered, Code: 220, Mixed: true},
			clr2(Inconclusive, events.StartTLSTempfail), next(Inconclusive, events.StartTLSTempfail), next(Inconclusive, events.StartTLSTempfail)},
		{"421 of mixed codes", "B4", Observed{Stage: StageStartTLS, StartTLS: Offered, Code: 421, Mixed: true},
			clr2(Inconclusive, events.StartTLSTempfail), next(Inconclusive, events.StartTLSTempfail), next(Inconclusive, events.StartTLSTempfail)},
		{"502 of mixed codes", "B4", Observed{Stage: StageStartTLS, StartTLS: Offered, Code: 502, Mixed: true},
			clr2(Inconclusive, events.StartTLSTempfail), next(Inconclusive, events.StartTLSTempfail), next(Inconclusive, events.StartTLSTempfail)},
		{"injected", "B5", Observed{Stage: StageStartTLS, StartTLS: Offered, Code: 220, Injected: true},
			next(Suspicious, events.StartTLSInjection), next(Suspicious, events.StartTLSInjection), next(Suspicious, events.StartTLSInjection)},
		{"closed after 220", "B6", hs(Closed, 0, FullHello),
			againO(RetryCompat, Inconclusive, events.TLSClosed), again(RetryCompat, Inconclusive, events.TLSClosed), again(RetryCompat, Inconclusive, events.TLSClosed)},
		{"closed, compat too", "B6", hs(Closed, 0, CompatHello),
			clr2(Inconclusive, events.TLSClosed), next(Inconclusive, events.TLSClosed), next(Inconclusive, events.TLSClosed)},
		{"silent", "B7", hs(Timeout, 0, FullHello),
			againO(RetryCompat, Inconclusive, events.TLSTimeout), again(RetryCompat, Inconclusive, events.TLSTimeout), again(RetryCompat, Inconclusive, events.TLSTimeout)},
		{"garbage", "B8", hs(NotTLS, 0, FullHello),
			clr2(Inconclusive, events.TLSNotTLS), next(Inconclusive, events.TLSNotTLS), next(Inconclusive, events.TLSNotTLS)},

		{"alert 70", "C1", hs(Alert, 70, FullHello),
			clr2(Conclusive, events.TLSVersion), next(Conclusive, events.TLSVersion), next(Conclusive, events.TLSVersion)},
		{"chosen too low", "C1", hs(VersionLow, 0, FullHello),
			clr2(Conclusive, events.TLSVersion), next(Conclusive, events.TLSVersion), next(Conclusive, events.TLSVersion)},
		{"session of 1.0", "C1", Observed{Stage: StageReady, TLS: tlsSession(TLS10)},
			ok, next(Conclusive, events.TLSVersion), next(Conclusive, events.TLSVersion)},
		{"alert 40", "C2", hs(Alert, 40, FullHello),
			againO(RetryCompat, Conclusive, events.TLSHandshake), again(RetryCompat, Conclusive, events.TLSHandshake), again(RetryCompat, Conclusive, events.TLSHandshake)},
		{"alert 71, compat too", "C2", hs(Alert, 71, CompatHello),
			clr2(Conclusive, events.TLSHandshake), next(Conclusive, events.TLSHandshake), next(Conclusive, events.TLSHandshake)},
		{"alert 80", "C3", hs(Alert, 80, CompatHello),
			clr2(Inconclusive, events.TLSHandshake), next(Inconclusive, events.TLSHandshake), next(Inconclusive, events.TLSHandshake)},
		{"alert 112", "C4", hs(Alert, 112, FullHello),
			againO(RetryNoSNI, Conclusive, events.TLSHandshake), again(RetryNoSNI, Conclusive, events.TLSHandshake), again(RetryNoSNI, Conclusive, events.TLSHandshake)},
		{"alert 112 without SNI", "C4", hs(Alert, 112, NoSNIHello),
			clr2(Conclusive, events.TLSHandshake), next(Conclusive, events.TLSHandshake), next(Conclusive, events.TLSHandshake)},
		{"alert 116", "C5", hs(Alert, 116, FullHello),
			clr2(Conclusive, events.ClientCertRequired), next(Conclusive, events.ClientCertRequired), next(Conclusive, events.ClientCertRequired)},
		{"client cert on first read", "C5", Observed{Stage: StageEHLOTLS, Fault: ClientCert, Hello: FullHello},
			clr2(Conclusive, events.ClientCertRequired), next(Conclusive, events.ClientCertRequired), next(Conclusive, events.ClientCertRequired)},
		{"our limit", "C6", hs(LocalLimit, 0, FullHello),
			clr2(Conclusive, events.TLSLocalLimit), next(Conclusive, events.TLSLocalLimit), next(Conclusive, events.TLSLocalLimit)},
		{"bad certificate", "C7", Observed{Stage: StageReady, TLS: tlsSession(TLS13, events.CertUntrusted, events.CertExpired)},
			ok, ok, next(Conclusive, events.CertUntrusted)},
		{"EHLO in TLS closed", "C8", Observed{Stage: StageEHLOTLS, Fault: Closed, Hello: FullHello, TLS: tlsSession(TLS13)},
			againO(RetryCompat, Inconclusive, events.TLSClosed), next(Inconclusive, events.TLSClosed), next(Inconclusive, events.TLSClosed)},
		{"EHLO in TLS 500, compat too", "C8", Observed{Stage: StageEHLOTLS, Code: 500, Hello: CompatHello, TLS: tlsSession(TLS13)},
			clr2(Inconclusive, events.EHLOFail), next(Inconclusive, events.EHLOFail), next(Inconclusive, events.EHLOFail)},
		{"EHLO in TLS 501", "A5n", Observed{Stage: StageEHLOTLS, Code: 501, Hello: FullHello, TLS: tlsSession(TLS13)},
			next(Unreachable, events.NameRefused), next(Unreachable, events.NameRefused), next(Unreachable, events.NameRefused)},
		{"EHLO in TLS of mixed codes", "C8", Observed{Stage: StageEHLOTLS, Code: 501, Mixed: true, Hello: CompatHello, TLS: tlsSession(TLS13)},
			clr2(Inconclusive, events.EHLOFail), next(Inconclusive, events.EHLOFail), next(Inconclusive, events.EHLOFail)},
		{"lost after MAIL", "C11", Observed{Stage: StageMail, Fault: Closed, Hello: FullHello, TLS: tlsSession(TLS13)},
			next(Unreachable, events.SessionLost), next(Unreachable, events.SessionLost), next(Unreachable, events.SessionLost)},
		{"good", "ENC", Observed{Stage: StageReady, TLS: tlsSession(TLS13)}, ok, ok, ok},
		{"downgrade canary", "C3", hs(Downgrade, 0, FullHello),
			next(Suspicious, events.TLSDowngrade), next(Suspicious, events.TLSDowngrade), next(Suspicious, events.TLSDowngrade)},
	} {
		for _, cell := range []struct {
			column string
			d      Decision
			want   want
		}{{"O", o, c.o}, {"T", req, c.t}, {"V", valid, c.v}} {
			t.Run(c.row+" "+c.name+"/"+cell.column, func(t *testing.T) {
				got := cell.d.Judge(c.seen)
				if (want{got.Action, got.Class, got.Reason, got.ClearLater}) != cell.want {
					t.Errorf("got %+v, want %+v", got, cell.want)
				}
				if got.Row != c.row && got.Class != OK {
					t.Errorf("row %s, want %s", got.Row, c.row)
				}
				demanded := got.Class != Unreachable && got.Class != OK && cell.column != "O"
				if demanded != (got.Failed != Demand{}) {
					t.Errorf("failed demand %+v: must be named exactly when one was not met", got.Failed)
				}
			})
		}
	}
}

// The version grid: what a host that speaks at best `best`
// comes to under each floor.
func TestVersionGrid(t *testing.T) {
	for _, floor := range []Version{0, TLS11, TLS12, TLS13} {
		d := Sender{Account: Settings{RequireTLS: floor != 0, MinVersion: floor}}.Demands().On(Facts{})
		for best := TLS10; best <= TLS13; best++ {
			got := d.Judge(Observed{Stage: StageReady, StartTLS: Offered, TLS: tlsSession(best)})
			if want := best >= floor; (got.Action == Proceed) != want {
				t.Errorf("host %s under floor %s: %+v", best, floor, got)
			}
		}
	}
}

// Row C12 exists in mode O alone: nobody else speaks MAIL in clear.
func TestStartTLSFirst(t *testing.T) {
	o, _, _ := theColumns()
	v := o.Judge(Observed{Stage: StageMail, Code: 530, Plain: true})
	if v.Row != "C12" || v.Action != Next || v.Class != Inconclusive || v.ClearLater {
		t.Errorf("530 in phase 2: %+v", v)
	}
}

func TestRequireTLS(t *testing.T) {
	s := Sender{RequireTLS: true}
	signed := Facts{MX: MXDNSSEC}
	good := Observed{Stage: StageReady, TLS: tlsSession(TLS12), RequireTLS: true}
	without := good
	without.RequireTLS = false
	relaxed := Sender{RequireTLS: true, Account: Settings{RelaxedRequireTLS: true}}
	for _, c := range []struct {
		name   string
		d      Decision
		seen   Observed
		reason events.Reason
		status string
	}{
		{"all met", s.Demands().On(signed), good, "", ""},
		{"keyword missing", s.Demands().On(signed), without, events.RequireTLSUnsupported, "5.7.30"},
		{"keyword missing, relaxed", relaxed.Demands().On(signed), without, "", ""},
		{"unsigned MX", s.Demands().On(Facts{}), good, events.MXUnauthenticated, "5.7.5"},
		{"no TLS", s.Demands().On(signed), Observed{Stage: StageReady}, events.StartTLSNotOffered, "5.7.10"},
		{"handshake failed", s.Demands().On(signed), Observed{Stage: StageHandshake, Fault: Closed, Hello: CompatHello}, events.TLSClosed, "5.7.10"},
		{"bad certificate", s.Demands().On(signed), Observed{Stage: StageReady, TLS: tlsSession(TLS12, events.CertName), RequireTLS: true}, events.CertName, "5.7.5"},
	} {
		got := c.d.Judge(c.seen)
		if got.Reason != c.reason {
			t.Errorf("%s: %+v", c.name, got)
		}
		if c.reason != "" {
			if st := Status(got.Reason, got.Failed.Source, true); st != c.status || got.Failed.Source != FromMessage {
				t.Errorf("%s: status %s from %s, want %s", c.name, st, got.Failed.Source, c.status)
			}
		}
	}
}

func TestStatusWhileRetrying(t *testing.T) {
	for reason, want := range map[events.Reason][2]string{
		events.StartTLSNotOffered: {"4.7.4", "5.7.10"},
		events.StartTLSTempfail:   {"4.7.4", "5.7.10"},
		events.StartTLSInjection:  {"4.7.5", "5.7.5"},
		events.TLSVersion:         {"4.7.4", "5.7.4"},
		events.TLSHandshake:       {"4.7.5", "5.7.5"},
		events.CertExpired:        {"4.7.5", "5.7.5"},
	} {
		if got := [2]string{Status(reason, FromAccount, false), Status(reason, FromAccount, true)}; got != want {
			t.Errorf("%s: %v, want %v", reason, got, want)
		}
	}
}
