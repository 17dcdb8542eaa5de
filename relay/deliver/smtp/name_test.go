package smtp

import (
	"net/netip"
	"testing"
)

func TestQualified(t *testing.T) {
	for hostname, want := range map[string]string{
		"relay.example.com": "relay.example.com", "Relay.Example.com.": "relay.example.com", "bücher.example": "xn--bcher-kva.example",
		"": "", "localhost": "", "relay-01": "", "192.0.2.1": "", "2001:db8::1": "", "[192.0.2.1]": "", "not a name.example": "",
	} {
		if got := Qualified(hostname); got != want {
			t.Errorf("%q: %q, want %q", hostname, got, want)
		}
	}
}

func TestLiteral(t *testing.T) {
	for a, want := range map[string]string{
		"192.0.2.1": "[192.0.2.1]", "::ffff:192.0.2.1": "[192.0.2.1]",
		"2001:db8::1": "[IPv6:2001:db8::1]", "fe80::1%eth0": "[IPv6:fe80::1]",
	} {
		if got := literal(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %s, want %s", a, got, want)
		}
	}
}
