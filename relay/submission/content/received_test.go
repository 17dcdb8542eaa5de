package content

import (
	"net/mail"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tlsrelay/relay"
)

func TestReceived(t *testing.T) {
	only, _ := relay.ParseAddress(`"a b"@c.example`, false)
	tr := Envelope{
		ClientName: "evil\r\nX: y", Client: netip.MustParseAddr("2001:db8::1"), Hostname: "relay.example", ID: relay.MessageID{}.String(), At: time.Unix(0, 0).UTC(),
		ESMTP: true, Secured: "TLS 1.2:TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", Recipients: []relay.Recipient{{Address: only}},
	}
	got := string(tr.received(nil))
	want := "Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])\r\n\tby relay.example with ESMTPS id AAAAAAAAAAAAAAAAAAAAAA\r\n" +
		"\t(TLS 1.2:TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)\r\n\tfor <\"a b\"@c.example>;\r\n\tThu, 01 Jan 1970 00:00:00 +0000\r\n"
	if got != want {
		t.Errorf("%q", got)
	}
	if m, err := mail.ReadMessage(strings.NewReader(got + "\r\n")); err != nil || len(m.Header) != 1 {
		t.Error(m, err)
	}
	for address, want := range map[string]string{"b@bücher.example": "for <b@xn--bcher-kva.example>", "bücher@x.example": ""} {
		tr.Recipients[0].Address, _ = relay.ParseAddress(address, true)
		got := string(tr.received(nil))
		if hasEightBit([]byte(got)) || want != "" && !strings.Contains(got, want) || want == "" && strings.Contains(got, "for <") {
			t.Errorf("%s: %q", address, got)
		}
	}
	if p := (&Envelope{}).protocol(); p != "SMTP" {
		t.Error(p)
	}
}
