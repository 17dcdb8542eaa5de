package policy

import (
	"encoding/json"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tlsrelay/events"
	"tlsrelay/policy/domain"
)

func TestDecideKeepsTheStrictestAndItsSource(t *testing.T) {
	d := Sender{
		Account:  Settings{RequireTLS: true, MinVersion: TLS12},
		Parent:   &Settings{RequireTLS: true, MinVersion: TLS13, EnforceOnSubusers: true},
		Override: &Settings{RequireValidCert: true, MinVersion: TLS11},
	}.Demands()
	want := []Demand{
		{Encryption, FromAccount, 0},
		{MinimumVersion, FromParent, TLS13},
		{ValidCert, FromOverride, 0},
	}
	if !slices.Equal(d.List, want) {
		t.Errorf("got %+v", d.List)
	}
}

func TestParentIsAFloorOnlyWhereItSaysSo(t *testing.T) {
	d := Sender{Parent: &Settings{RequireTLS: true}}.Demands()
	if !d.Opportunistic() {
		t.Errorf("a parent that does not enforce its settings made demands: %+v", d.List)
	}
}

// A subuser is strict about REQUIRETLS where its parent is and says so.
func TestSubuserIsNotLooserThanItsFloor(t *testing.T) {
	for _, c := range []struct {
		parent  *Settings
		relaxed bool
	}{
		{nil, true},
		{&Settings{RequireTLS: true}, true},
		{&Settings{EnforceOnSubusers: true}, false},
		{&Settings{EnforceOnSubusers: true, RelaxedRequireTLS: true}, true},
	} {
		d := Sender{Account: Settings{RelaxedRequireTLS: true}, Parent: c.parent, RequireTLS: true}.Demands()
		if _, strict := d.demand(HostKeyword); strict == c.relaxed {
			t.Errorf("parent %+v: %+v", c.parent, d.List)
		}
	}
}

func TestUnknownValuesFailClosed(t *testing.T) {
	for _, v := range []Version{1, SSL30, TLS10, 0x0305, 0xffff} {
		d := Sender{Account: Settings{RequireTLS: true, MinVersion: v}}.Demands()
		if d.Floor() != TLS13 {
			t.Errorf("stored version %s gave floor %s", v, d.Floor())
		}
	}
	var s Settings
	if err := json.Unmarshal([]byte(`{"require_tls":true,"min_version":"1.4"}`), &s); err == nil {
		t.Error("a stored version 1.4 was read without an error")
	}
	if d := (Sender{Account: Settings{OnViolation: "shrug"}}).Demands(); d.Defer {
		t.Error("an unknown on_violation put a block off")
	}
}

func TestVersionDoesNotBindWithoutAFlag(t *testing.T) {
	d := Sender{Account: Settings{MinVersion: TLS13}}.Demands()
	if !d.Opportunistic() || d.Floor() != 0 {
		t.Errorf("got %+v", d)
	}
}

func TestReferenceNames(t *testing.T) {
	mx, rcpt := domain.MustParse("mx.example.test"), domain.MustParse("example.test")
	for _, c := range []struct {
		f    Facts
		want []string
	}{
		{Facts{Host: mx, Recipient: rcpt}, []string{"mx.example.test", "example.test"}},
		{Facts{Host: rcpt, Recipient: rcpt}, []string{"example.test"}}, // no MX, address only
		{Facts{Host: mx}, []string{"mx.example.test"}},                 // a configured route
		{Facts{Literal: "192.0.2.1"}, []string{"192.0.2.1"}},
		{Facts{}, nil},
	} {
		if got := (Demands{}).On(c.f).Names; !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.f, got, c.want)
		}
	}
}

// stricter draws settings that demand at least what s does.
func stricter(t *rapid.T, s Settings) Settings {
	u := s
	u.RequireTLS = s.RequireTLS || rapid.Bool().Draw(t, "tls")
	u.RequireValidCert = s.RequireValidCert || rapid.Bool().Draw(t, "cert")
	u.ForwardSecrecy = s.ForwardSecrecy || rapid.Bool().Draw(t, "fs")
	u.AuthenticMX = s.AuthenticMX || rapid.Bool().Draw(t, "mx")
	u.MinVersion = Version(rapid.IntRange(int(s.Floor()), int(TLS13)).Draw(t, "version"))
	return u
}

// A stricter setting never turns a refusal into a delivery.
func TestStricterIsNeverLooser(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		loose := stricter(t, Settings{})
		strict := stricter(t, loose)
		seen := drawObserved(t)
		a := Sender{Account: loose}.Demands().On(Facts{}).Judge(seen)
		b := Sender{Account: strict}.Demands().On(Facts{}).Judge(seen)
		if a.Action != Proceed && b.Action == Proceed {
			t.Fatalf("%+v refused (%+v) what stricter %+v lets pass (%+v)", loose, a, strict, b)
		}
		if !(Sender{Account: strict}).Demands().Opportunistic() {
			if b.ClearLater || b.Action == SayHELO || b.Action == Proceed && seen.TLS == nil {
				t.Fatalf("plaintext under %+v: %+v", strict, b)
			}
		}
	})
}

func drawObserved(t *rapid.T) Observed {
	o := Observed{
		Stage: rapid.SampledFrom([]Stage{StageConnect, StageGreeting, StageEHLO, StageStartTLS,
			StageHandshake, StageEHLOTLS, StageReady, StageMail, "unheard of"}).Draw(t, "stage"),
		Fault: rapid.SampledFrom([]Fault{NoFault, NoConnect, Timeout, Closed, Garbage, NotTLS, Alert,
			VersionLow, ClientCert, LocalLimit, Downgrade, "unheard of"}).Draw(t, "fault"),
		Code:     rapid.SampledFrom([]int{0, 220, 250, 334, 421, 454, 500, 501, 502, 504, 530, 554, 599, 999}).Draw(t, "code"),
		Alert:    rapid.Uint8().Draw(t, "alert"),
		StartTLS: rapid.SampledFrom([]Offer{NotOffered, Offered, Masked}).Draw(t, "offer"),
		Injected: rapid.Bool().Draw(t, "injected"),
		Hello:    rapid.SampledFrom([]Hello{"", FullHello, CompatHello, NoSNIHello, ProbeHello}).Draw(t, "hello"),
		Plain:    rapid.Bool().Draw(t, "plain"),
		Mixed:    rapid.Bool().Draw(t, "mixed"),
		HELO:     rapid.Bool().Draw(t, "helo"),
		Ticket:   rapid.Bool().Draw(t, "ticket"), FirstMail: rapid.Bool().Draw(t, "first"),
	}
	if rapid.Bool().Draw(t, "encrypted") {
		o.TLS = &Session{
			Version:       Version(rapid.IntRange(int(SSL30), int(TLS13)).Draw(t, "v")),
			ForwardSecret: rapid.Bool().Draw(t, "secret"),
			Resumed:       rapid.Bool().Draw(t, "resumed"),
		}
		if rapid.Bool().Draw(t, "bad") {
			o.TLS.Cert.Faults = []events.Reason{events.CertName}
		}
	}
	return o
}

// Whatever a host does, no decision with demands says anything that could
// lead to a byte of mail in clear.
func TestNothingInClearUnderADemand(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Sender{Account: Settings{RequireTLS: true}, RequireTLS: rapid.Bool().Draw(t, "rt")}.Demands().On(Facts{})
		seen := drawObserved(t)
		v := d.Judge(seen)
		clear := v.ClearLater || v.Action == SayHELO || v.Action == Proceed && seen.TLS == nil
		if clear {
			t.Fatalf("%+v gave %+v", seen, v)
		}
	})
}
