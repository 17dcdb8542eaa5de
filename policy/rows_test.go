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
	return []Decision{
		Sender{}.Demands().On(Facts{}), Sender{Account: tls}.Demands().On(Facts{}),
		Sender{Account: Settings{RequireValidCert: true}}.Demands().On(Facts{}),
		Sender{Account: secret}.Demands().On(Facts{}), Sender{Account: signed}.Demands().On(Facts{}),
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

// The table of rows is what Judge does: every verdict has its row there, with
// words, class and reason, and nothing stands there that Judge never says.
func TestRowsAreWhatJudgeSays(t *testing.T) {
	type said struct {
		row string
		Finding
	}
	seen := map[said]bool{}
	everySight(func(o Observed) {
		for _, d := range everyDecision() {
			v := d.Judge(o)
			seen[said{v.Row, Finding{v.Class, v.Reason}}] = true
			if v.Action != RetryNoTicket && d.ProbesVersion([]Observed{o, {Stage: StageHandshake, Fault: o.Fault, Alert: o.Alert, Hello: CompatHello}}) {
				for _, probe := range []Observed{o, {Stage: StageHandshake, Hello: ProbeHello, TLS: &Session{Version: TLS13}},
					{Stage: StageHandshake, Hello: ProbeHello, TLS: &Session{Version: TLS10}}} {
					p := d.JudgeProbe(probe, v)
					seen[said{p.Row, Finding{p.Class, p.Reason}}] = true
				}
			}
		}
	})
	listed := map[said]bool{}
	for _, r := range Rows() {
		if r.Words == "" {
			t.Errorf("row %s has no words", r.Name)
		}
		for _, f := range r.Gives {
			if one := (said{r.Name, f}); listed[one] {
				t.Errorf("%+v is listed twice", one)
			} else if listed[one] = true; !seen[one] {
				t.Errorf("Judge never says %+v", one)
			}
		}
	}
	for one := range seen {
		if !listed[one] {
			t.Errorf("Judge says %+v, which is not in the table of rows", one)
		}
	}
}

func TestWords(t *testing.T) {
	for _, r := range Rows() {
		if got := (Verdict{Row: r.Name}).Words(); got != r.Words {
			t.Errorf("row %s: %q", r.Name, got)
		}
		for _, f := range r.Gives {
			if f.Class.Words() == "" {
				t.Errorf("class %s has no words", f.Class)
			}
		}
	}
	words := []string{ClassOpportunistic.Words(), ClassEncrypt.Words(), ClassValid.Words()}
	if slices.Contains(words, "") || (Verdict{Row: "Z9"}).Words()+Evidence("z").Words()+Class("z").Words() != "" {
		t.Errorf("%q", words)
	}
}
