package events

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

// An event that is put together again is the event, to the octet, whatever its
// sender and the receiving host wrote into it.
func FuzzJoin(f *testing.F) {
	f.Add(uint8(0), "a@b.example", "250 ok", "<1@a.example>", `"one"`, "zz", "1", "AA", "2")
	f.Add(uint8(1), "\"}{,\\", "a \\\" , } { : \n", "<,\"}\\>", `[ "a", "b\\\"," ]`, "smtp-id", "x", "category", "y")
	f.Add(uint8(2), "", "", "", "", "", "", "sg", ",}")
	f.Add(uint8(3), "é\xff@x", "550 \u2028<&>", "<é\xff>", `["<&>\u2028"]`, "\xff", "1", "\xfe", "2")
	f.Fuzz(func(t *testing.T, kind uint8, email, reply, smtpID, category, k1, v1, k2, v2 string) {
		s := Subject{
			Account: "1", MessageID: "AaIKexxC9AiMNsQOtEE07A", Recipient: 7, Email: email, SMTPID: smtpID,
			Category: json.RawMessage(category), UniqueArgs: map[string]string{k1: v1, k2: v2},
		}
		sess := Session{LocalIP: "192.0.2.1", TLSVersion: "1.3", CertErr: true}
		at := time.Unix(1795472170, 0)
		e := [...]Event{
			NewProcessed(s, at), NewDeferred(s, at, sess, 2, reply, DNSFail), NewDelivered(s, at, sess, reply),
			NewBounce(s, at, sess, TypeBlocked, reply, "5.7.10", DNSFail),
		}[kind%4]
		c := e.Common()
		fields := c.Fields()
		own := e.AppendOwn(nil)
		got, want := fields.Join(nil, own), e.AppendJSON(nil)
		if !bytes.Equal(got, want) {
			t.Errorf("joined:\n%s\nwhole:\n%s", got, want)
		}
		if len(own)+fields.Size() != len(want) {
			t.Errorf("%d octets are %d and %d", len(want), len(own), fields.Size())
		}
		if n := c.Size(); n > 10 && n > 6*len(want) {
			t.Errorf("estimated at %d of %d octets", n, len(want))
		}
	})
}
