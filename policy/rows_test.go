package policy

import (
	"slices"
	"testing"

	"tlsrelay/events"
)

// everyDecision is one decision of each kind.
func everyDecision() []Decision {
	tls := Settings{RequireTLS: true, MinVersion: TLS12}
	secret, signed := tls, tls
	secret.ForwardSecrecy, signed.AuthenticMX = true, true
	strict := secret
	strict.RequireValidCert = true
	return []Decision{
		Sender{}.Demands().On(Facts{}), Sender{Account: tls}.Demands().On(Facts{}),
		Sender{Account: Settings{RequireValidCert: true}}.Demands().On(Facts{}),
		Sender{Account: secret}.Demands().On(Facts{}), Sender{Account: strict}.Demands().On(Facts{}), Sender{Account: signed}.Demands().On(Facts{}),
		Sender{RequireTLS: true}.Demands().On(Facts{}), Sender{RequireTLS: true}.Demands().On(Facts{MX: MXDNSSEC}),
	}
}

// everySight calls yield with every kind of thing that a connection can show.
func everySight(yield func(Observed)) {
	stages := []Stage{StageConnect, StageGreeting, StageEHLO, StageStartTLS, StageHandshake, StageEHLOTLS, StageMail, "unheard of"}
	faults := []Fault{NoFault, NoConnect, Timeout, Closed, Garbage, NotTLS, Alert, VersionLow, ClientCert, LocalLimit, Downgrade, "unheard of"}
	for _, stage := range stages {
		for _, fault := range faults {
			for _, code := range []int{0, 220, 250, 334, 421, 454, 500, 501, 502, 503, 504, 530, 550, 554} {
				for _, alert := range []uint8{0, 20, 40, 47, 50, 51, 70, 71, 80, 112, 116} {
					for _, hello := range []Hello{"", FullHello, CompatHello, NoSNIHello} {
						for _, change := range []Observed{{}, {Injected: true}, {Mixed: true}, {HELO: true}, {Ticket: true}, {Ticket: true, FirstMail: true}} {
							o := change
							o.Stage, o.Fault, o.Code, o.Alert, o.StartTLS, o.Hello = stage, fault, code, alert, Offered, hello
							yield(o)
						}
					}
				}
			}
		}
	}
	sessions := []*Session{nil}
	for _, v := range []Version{TLS10, TLS13} {
		for _, secret := range []bool{true, false} {
			sessions = append(sessions, &Session{Version: v, ForwardSecret: secret})
			for _, r := range []events.Reason{events.CertUntrusted, events.CertExpired, events.CertNotYetValid, events.CertName,
				events.CertWeakKey, events.CertWeakSig, events.CertUsage} {
				sessions = append(sessions, &Session{Version: v, ForwardSecret: secret, Cert: Certificate{Faults: []events.Reason{r}}})
			}
		}
	}
	for _, s := range sessions {
		for _, offer := range []Offer{NotOffered, Offered, Masked} {
			yield(Observed{Stage: StageReady, StartTLS: offer, TLS: s})
			yield(Observed{Stage: StageReady, StartTLS: offer, TLS: s, RequireTLS: true})
			if s != nil {
				resumed := *s
				resumed.Resumed = true
				yield(Observed{Stage: StageReady, StartTLS: offer, TLS: &resumed, Ticket: true})
				for _, code := range []int{454, 554} {
					yield(Observed{Stage: StageMail, StartTLS: offer, TLS: &resumed, Ticket: true, FirstMail: true, Code: code})
				}
			}
		}
	}
}

// mail is how v lets a message go: what Cell.Mail says of a row.
func (v Verdict) mail(o Observed) Mail {
	switch {
	case v.ClearLater:
		return ClearLater
	case v.Action == SayHELO, v.Action == Proceed && o.TLS == nil:
		return InClear
	case v.Action == Proceed:
		return Encrypted
	}
	return NoMail
}

// again is the other way to try that v names: what Cell.Again says of a row.
func (v Verdict) again() Action {
	if v.Action == Proceed || v.Action == Next {
		return ""
	}
	return v.Action
}

// answer is what a row says under one kind of demands.
type answer struct {
	row   string
	under Class
	Cell
}

// finding is a reason that a row gives.
type finding struct {
	row string
	Finding
}

// The table is what Judge does: every verdict is the answer of a row, in the
// column of its demands, and whatever stands in the table is said.
func TestRowsAreWhatJudgeSays(t *testing.T) {
	answers, findings := map[answer]bool{}, map[finding]bool{}
	hear := func(d Decision, o Observed, v Verdict) {
		findings[finding{v.Row, Finding{v.Class, v.Reason}}] = true
		answers[answer{v.Row, d.Class(), Cell{v.Class, v.mail(o), v.again()}}] = true
	}
	everySight(func(o Observed) {
		for _, d := range everyDecision() {
			v := d.Judge(o)
			hear(d, o, v)
			if v.Action != RetryNoTicket && d.ProbesVersion([]Observed{o, {Stage: StageHandshake, Fault: o.Fault, Alert: o.Alert, Hello: CompatHello}}) {
				for _, probe := range []Observed{o, {Stage: StageHandshake, Hello: ProbeHello, TLS: &Session{Version: TLS13}},
					{Stage: StageHandshake, Hello: ProbeHello, TLS: &Session{Version: TLS10}}} {
					hear(d, o, d.JudgeProbe(probe, JudgeAddress([]Verdict{v})))
				}
			}
		}
	})
	given, gives := map[answer]bool{}, map[finding]bool{}
	for _, r := range Rows() {
		if r.When == "" || r.Source == "" {
			t.Errorf("row %s does not say when, or by which RFC", r.ID)
		}
		for _, f := range r.Findings() {
			gives[finding{r.ID, f}] = true
		}
		for _, c := range everyClass {
			cell := r.Cell(c)
			if cell == never {
				continue
			}
			if a := (answer{r.ID, c, cell}); !answers[a] {
				t.Errorf("Judge never answers %+v", a)
			}
			given[answer{r.ID, c, cell}] = true
			if cell.Again != SayHELO {
				cell.Again = "" // nothing else is left to try: the answer holds
				given[answer{r.ID, c, cell}] = true
			}
		}
	}
	for a := range answers {
		if !given[a] {
			t.Errorf("Judge answers %+v, which is not in the table", a)
		}
	}
	for f := range gives {
		if !findings[f] {
			t.Errorf("Judge never gives %+v", f)
		}
	}
	for f := range findings {
		if !gives[f] {
			t.Errorf("Judge gives %+v, which is not in the table", f)
		}
	}
}

// everyClass is the columns of the table.
var everyClass = [columns]Class{ClassOpportunistic, ClassEncrypt, ClassValid}

func TestWords(t *testing.T) {
	for _, r := range Rows() {
		for _, f := range r.Findings() {
			if f.Class.Words() == "" {
				t.Errorf("class %s has no words", f.Class)
			}
		}
	}
	for want, v := range map[string]Verdict{
		"offers no STARTTLS":                                  {Row: "A4", Class: OK, Action: Proceed},
		"refuses EHLO with another 5xx":                       {Row: "A6", Class: Unreachable, Reason: events.EHLOFail},
		"cannot be reached, or does not greet":                {Row: "A1", Class: Unreachable, Reason: events.HostUntried},
		"answers EHLO with lines of different codes":          {Row: "A6", Class: Inconclusive, Reason: events.EHLOFail},
		"does not list REQUIRETLS, which the message demands": {Row: "C9", Class: Conclusive, Reason: events.RequireTLSUnsupported},
		"": {Row: "Z9"},
	} {
		if got := v.Words(false); got != want {
			t.Errorf("%+v: %q, want %q", v, got, want)
		}
	}
	if got := (Verdict{Row: "A4", Class: OK, Action: Proceed}).Words(true); got != "failed at TLS, and takes mail in clear" {
		t.Errorf("in phase 2: %q", got)
	}
	words := []string{ClassOpportunistic.Words(), ClassEncrypt.Words(), ClassValid.Words()}
	if slices.Contains(words, "") || Evidence("z").Words()+Class("z").Words() != "" {
		t.Errorf("%q", words)
	}
}
