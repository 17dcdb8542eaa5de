package policy

import (
	"testing"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy/domain"
)

// BenchmarkDecision is the whole decision of one attempt: the demands on a
// host, the verdict on a good session, the conclusion.
func BenchmarkDecision(b *testing.B) {
	good := Observed{Stage: StageReady, StartTLS: Offered, TLS: tlsSession(TLS13)}
	bad := Observed{Stage: StageReady, StartTLS: Offered, TLS: tlsSession(TLS12, events.CertExpired)}
	for _, c := range []struct {
		name   string
		sender Sender
		seen   Observed
		want   Ruling
	}{
		{"opportunistic", Sender{}, good, Allowed},
		{"valid", Sender{Account: Settings{RequireValidCert: true, MinVersion: TLS12}}, good, Allowed},
		{"blocked", Sender{Account: Settings{RequireValidCert: true, MinVersion: TLS12}}, bad, Block},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			f := Facts{Host: domain.MustParse("mx.example.test"), Recipient: domain.MustParse("example.test")}
			now := time.Now()
			for b.Loop() {
				d := c.sender.Demands().On(f)
				v := d.Judge(c.seen)
				r, _ := Conclude(d.Demands, []HostVerdict{Merge("mx.example.test", []Verdict{v})}, History{}, now, testRules)
				if r != c.want {
					b.Fatal(r)
				}
			}
		})
	}
}
