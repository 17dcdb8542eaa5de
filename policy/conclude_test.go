package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tlsrelay/events"
)

var testRules = Rules{Window: 24 * time.Hour, ConfirmAfter: 15 * time.Minute}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// hostsOf reads one letter per host: conclusive, inconclusive, unreachable, x for
// suspicious, k for ok.
// An upper-case I is inconclusive for another reason.
func hostsOf(letters string) []HostVerdict {
	kinds := map[rune]Verdict{
		'k': {Class: OK},
		'c': {Class: Conclusive, Reason: events.StartTLSNotOffered},
		'i': {Class: Inconclusive, Reason: events.TLSClosed},
		'I': {Class: Inconclusive, Reason: events.TLSTimeout},
		'x': {Class: Suspicious, Reason: events.StartTLSInjection},
		'u': {Class: Unreachable, Reason: events.ConnectFail},
	}
	var hosts []HostVerdict
	for n, l := range letters {
		hosts = append(hosts, HostVerdict{fmt.Sprintf("mx%d", n), kinds[l]})
	}
	return hosts
}

// Each case is a story of passes: "minutes hosts -> ruling".
func TestConcludeStories(t *testing.T) {
	account := Settings{RequireTLS: true}
	patient := account
	patient.OnViolation = Defer
	for _, c := range []struct {
		name   string
		sender Sender
		story  string
	}{
		{"every host conclusive", Sender{Account: account}, "0 cc block"},
		{"one host, conclusive", Sender{Account: account}, "0 c block"},
		{"c and i, i repeats", Sender{Account: account}, "0 ci retry; 5 ci retry; 15 ci block"},
		{"c and i, i repeats otherwise", Sender{Account: account}, "0 ci retry; 20 cI retry; 36 cI block"},
		{"all i twice more", Sender{Account: account}, "0 ii retry; 15 ii retry; 30 ii block"},
		{"all i, too close to confirm", Sender{Account: account}, "0 i retry; 5 i retry; 10 i retry; 14 i retry"},
		{"u beside c", Sender{Account: account}, "0 uc retry; 60 uc retry; 1439 uc retry; 1440 uc block"},
		{"u beside i", Sender{Account: account}, "0 ui retry; 60 ui retry; 120 ui retry; 1440 ui block"},
		{"all u", Sender{Account: account}, "0 uu unreached; 1440 uu unreached; 4000 u unreached"},
		{"c once, then u alone: the window decides on what was seen", Sender{Account: account}, "0 uc retry; 30 uu unreached; 1440 uu block"},
		{"i confirmed although unreachable in between", Sender{Account: account}, "0 ci retry; 20 cu retry; 40 ci block"},
		{"any x", Sender{Account: account}, "0 xc retry; 100 x retry; 1440 x block"},
		{"a compliant host closes the window", Sender{Account: account}, "0 uc retry; 1000 uk allowed; 1440 uc retry; 2880 uc block"},
		{"defer: never by the window", Sender{Account: patient}, "0 c retry; 1440 c retry; 4000 u unreached"},
		{"REQUIRETLS: over after the last host", Sender{RequireTLS: true}, "0 ci block"},
		{"REQUIRETLS: not the account's to defer", Sender{RequireTLS: true, Account: Settings{OnViolation: Defer}}, "0 ci block"},
		{"REQUIRETLS: unreachable is transient", Sender{RequireTLS: true}, "0 cu retry"},
		{"opportunistic is never blocked", Sender{}, "0 cc unreached; 2000 x unreached"},
		{"no hosts", Sender{Account: account}, "0 - unreached"},
		{"c once, then no DNS: the window decides on what was seen", Sender{Account: account}, "0 uc retry; 60 - unreached; 1439 - unreached; 1440 - block"},
		{"no DNS for a while does not open another window", Sender{Account: account}, "0 uc retry; 60 - unreached; 1440 u block"},
		{"i confirmed although no DNS in between", Sender{Account: account}, "0 i retry; 15 i retry; 20 - unreached; 30 i block"},
		{"no DNS is no second look", Sender{Account: account}, "0 ci retry; 15 - unreached; 30 ci block"},
		{"defer: never by the window, with DNS or without", Sender{Account: patient}, "0 c retry; 1440 - unreached; 4000 c retry"},
		{"REQUIRETLS: the window ends without DNS as well", Sender{RequireTLS: true}, "0 cu retry; 1440 - block"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := c.sender.Demands()
			var h History
			for step := range strings.SplitSeq(c.story, "; ") {
				var minutes int
				var letters, want string
				fmt.Sscan(step, &minutes, &letters, &want)
				var got Ruling
				got, h = Conclude(d, hostsOf(strings.Trim(letters, "-")), h, start.Add(time.Duration(minutes)*time.Minute), testRules)
				if string(got) != want {
					t.Fatalf("%s: got %s (history %+v)", step, got, h)
				}
			}
		})
	}
}

func TestMergeAddresses(t *testing.T) {
	for addresses, want := range map[string]Evidence{
		"": Unreachable, "u": Unreachable, "uc": Conclusive, "cu": Conclusive,
		"ci": Inconclusive, "ix": Suspicious, "xk": OK, "cck": OK,
	} {
		var vs []Verdict
		for _, h := range hostsOf(addresses) {
			vs = append(vs, h.Verdict)
		}
		if got := Merge("mx", vs); got.Class != want {
			t.Errorf("%q: %s, want %s", addresses, got.Class, want)
		}
	}
}

// What an account that demands nothing any more has left behind decides
// nothing, later demands included.
func TestLooseSettingsForget(t *testing.T) {
	demanding := Sender{Account: Settings{RequireTLS: true}}.Demands()
	_, h := Conclude(demanding, hostsOf("cu"), History{}, start, testRules)
	if !h.Violated() || h.Over(start.Add(testRules.Window-1)) || !h.Over(start.Add(testRules.Window)) {
		t.Fatalf("%+v", h)
	}
	_, h = Conclude(Demands{}, hostsOf("u"), h, start.Add(time.Hour), testRules)
	if r, h := Conclude(demanding, hostsOf("u"), h, start.Add(25*time.Hour), testRules); r != Unreached || h.Violated() {
		t.Errorf("%s %+v", r, h)
	}
}

// Evidence counts for as long as what it speaks against is demanded, and as much
// of it.
func TestEvidenceEndsWithItsDemand(t *testing.T) {
	demands := func(s Settings) Demands { return Sender{Account: s}.Demands() }
	valid := demands(Settings{RequireTLS: true, RequireValidCert: true})
	newest := demands(Settings{RequireTLS: true, MinVersion: TLS13})
	encrypt := demands(Settings{RequireTLS: true, MinVersion: TLS12})
	unreached := HostVerdict{"mx2", Verdict{Class: Unreachable}}
	for _, c := range []struct {
		name       string
		under, now Demands
		failed     Requirement
		want       Ruling
	}{
		{"the same demand", valid, valid, ValidCert, Block},
		{"no valid certificate any more", valid, encrypt, ValidCert, Unreached},
		{"encryption all the time", valid, encrypt, Encryption, Block},
		{"the same version", newest, newest, MinimumVersion, Block},
		{"a lower version", newest, encrypt, MinimumVersion, Unreached},
		{"a higher version", encrypt, newest, MinimumVersion, Block},
	} {
		bad := HostVerdict{"mx1", Verdict{Class: Conclusive, Reason: events.TLSVersion, Failed: c.under.failed(c.failed)}}
		_, h := Conclude(c.under, []HostVerdict{bad, unreached}, History{}, start, testRules)
		if !h.Violated() {
			t.Fatalf("%s: %+v", c.name, h)
		}
		down := []HostVerdict{{"mx1", Verdict{Class: Unreachable}}, unreached}
		if r, h := Conclude(c.now, down, h, start.Add(testRules.Window), testRules); r != c.want {
			t.Errorf("%s: %s, want %s; %+v", c.name, r, c.want, h)
		}
	}
}

// Before the window ends, nothing is blocked while some host is unreachable
// or suspicious, and never once a host complies.
func TestBlockNeedsEveryHost(t *testing.T) {
	d := Sender{Account: Settings{RequireTLS: true}}.Demands()
	rapid.Check(t, func(t *rapid.T) {
		var h History
		now := start
		for range rapid.IntRange(1, 8).Draw(t, "passes") {
			letters := rapid.StringMatching(`[kciux]{0,4}`).Draw(t, "hosts")
			var r Ruling
			r, h = Conclude(d, hostsOf(letters), h, now, testRules)
			windowOver := !h.Since.IsZero() && now.Sub(h.Since) >= testRules.Window
			if r == Block && (strings.Contains(letters, "k") || (letters == "" || strings.ContainsAny(letters, "ux")) && !windowOver) {
				t.Fatalf("blocked on %q, window since %v, now %v", letters, h.Since, now)
			}
			if r == Block && h.Violation.Reason == "" {
				t.Fatal("blocked without a reason")
			}
			now = now.Add(time.Duration(rapid.IntRange(1, 600).Draw(t, "minutes")) * time.Minute)
		}
	})
}
