package attempt

import (
	"net/netip"
	"testing"

	"tlsrelay/events"
	"tlsrelay/relay"
)

// The tests of relay/queue make attempts over a whole queue. Here are the decisions
// that need none.

func TestSuspension(t *testing.T) {
	servfail := relay.Failure{Class: relay.Temporary, Reason: events.DNSFail, Status: "4.4.3", Reply: relay.Reply{Text: "SERVFAIL"}}
	gone := relay.Failure{Class: relay.Permanent, Reason: events.ReplyPerm, Status: "5.1.1", Reply: relay.Reply{Code: 550, Text: "gone"}}
	for _, c := range []struct {
		name   string
		last   *relay.Failure
		reason events.Reason
		status string
		text   string
	}{
		{"nothing known", nil, events.ConnectFail, "4.4.1", "delivery temporarily suspended"},
		{"no answer of the DNS", &servfail, events.DNSFail, "4.4.3", "delivery temporarily suspended: SERVFAIL"},
		{"a recipient's end says nothing of the others", &gone, events.ConnectFail, "4.4.1", "delivery temporarily suspended"},
	} {
		f := suspension(c.last)
		if f.Class != relay.Temporary || f.Reason != c.reason || f.Status != c.status || f.Reply.Text != c.text {
			t.Errorf("%s: %+v", c.name, f)
		}
	}
}

// What a host said, and what has ended, is committed even if the attempt was cut
// short; silence is not.
func TestInformative(t *testing.T) {
	failed := func(class relay.Class, code int) relay.Outcome {
		return relay.Outcome{Failure: &relay.Failure{Class: class, Reply: relay.Reply{Code: code}}}
	}
	for _, c := range []struct {
		name     string
		outcomes []relay.Outcome
		want     bool
	}{
		{"silence", []relay.Outcome{failed(relay.Temporary, 0), failed(relay.Temporary, 0)}, false},
		{"one delivered", []relay.Outcome{failed(relay.Temporary, 0), {}}, true},
		{"one bounced", []relay.Outcome{failed(relay.Temporary, 0), failed(relay.Permanent, 0)}, true},
		{"a reply", []relay.Outcome{failed(relay.Temporary, 451)}, true},
	} {
		if got := informative(relay.Result{Outcomes: c.outcomes}); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

// The failure of a destination says more of it than that of a recipient.
func TestTemporaryFailure(t *testing.T) {
	recipient := &relay.Failure{Class: relay.Temporary, Reach: relay.ReachRecipient}
	destination := &relay.Failure{Class: relay.Temporary, Reach: relay.ReachDestination}
	bounced := &relay.Failure{Class: relay.Permanent, Reach: relay.ReachDestination}
	for _, c := range []struct {
		name     string
		failures []*relay.Failure
		want     *relay.Failure
	}{
		{"none", []*relay.Failure{nil, bounced}, nil},
		{"of a recipient", []*relay.Failure{nil, recipient, bounced}, recipient},
		{"of the destination", []*relay.Failure{recipient, destination}, destination},
	} {
		var r relay.Result
		for _, f := range c.failures {
			r.Outcomes = append(r.Outcomes, relay.Outcome{Failure: f})
		}
		if got := temporaryFailure(r); got != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// One owner is one domain to the guard, and one host one network, however many
// names and addresses it has.
func TestWhatTheGuardCounts(t *testing.T) {
	for destination, want := range map[string]string{
		"mail.a.example.co.uk": "example.co.uk",
		"example.com":          "example.com",
		"co.uk":                "co.uk",
		"[192.0.2.1]":          "[192.0.2.1]",
	} {
		if got := registered(destination); got != want {
			t.Errorf("%s is of %s, want %s", destination, got, want)
		}
	}
	for address, want := range map[string]netip.Prefix{
		"192.0.2.1:25":              netip.MustParsePrefix("192.0.2.1/32"),
		"[::ffff:192.0.2.1]:25":     netip.MustParsePrefix("192.0.2.1/32"),
		"[2001:db8:1:2:3:4:5:6]:25": netip.MustParsePrefix("2001:db8:1:2::/64"),
		"[fe80::1%eth0]:25":         netip.MustParsePrefix("fe80::/64"),
		"":                          {},
	} {
		if got := networkOf(address); got != want {
			t.Errorf("%q is in %v, want %v", address, got, want)
		}
	}
}
