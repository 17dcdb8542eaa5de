package events

import "testing"

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		reply, status string
		reason        Reason
		want          string
	}{
		{TLSBlocked, "5.7.10", StartTLSNotOffered, ClassTechnical},
		{TLSBlocked, "5.7.5", CertName, ClassTechnical},
		{TLSBlocked, "5.7.30", RequireTLSUnsupported, ClassTechnical},
		{TLSBlocked, "5.7.10", NoReason, ClassTechnical},
		{"", "5.4.4", NoHost, ClassTechnical},
		{"", "5.1.2", NoDomain, ClassAddress},
		{"", "5.1.10", NullMX, ClassAddress},
		{"dropped by an operator", "5.7.1", Dropped, ClassUnknown},
		{"550 5.1.1 The email account that you tried to reach does not exist", "5.1.1", ReplyPerm, ClassAddress},
		{"550 User unknown", "5.0.0", ReplyPerm, ClassAddress},
		{"552 5.2.2 mailbox full", "5.2.2", ReplyPerm, ClassMailbox},
		{"550 5.2.1 sorry", "5.2.1", ReplyPerm, ClassMailbox},
		{"550 5.7.1 Service unavailable; client host [192.0.2.1] blocked using Spamhaus", "5.7.1", ReplyPerm, ClassReputation},
		{"550 5.7.1 Message rejected", "5.7.1", ReplyPerm, ClassReputation},
		{"554 5.7.1 This message looks like spam", "5.7.1", ReplyPerm, ClassContent},
		{"552 5.7.0 virus found", "5.7.0", ReplyPerm, ClassContent},
		{"550 5.7.1 relaying denied", "5.7.1", ReplyPerm, ClassTechnical},
		{"550 5.7.26 unauthenticated mail", "5.7.26", ReplyPerm, ClassTechnical},
		{"421 4.7.28 unusual rate of unsolicited mail", "4.7.28", Expired, ClassVolume},
		{"452 4.2.2 over quota", "5.4.7", Expired, ClassMailbox},
		{"451 4.3.0 later", "5.4.7", Expired, ClassTechnical},
		{"552 5.3.4 message too big", "5.3.4", ReplyPerm, ClassTechnical},
		{"554 a terrible day", "5.0.0", ReplyPerm, ClassUnknown},
		{"554 no", "5.0.0", ReplyPerm, ClassUnknown},
		{"", "", NoReason, ClassUnknown},
		{"554 no", "nonsense", ReplyPerm, ClassUnknown},
	} {
		if got := Classify(c.reply, c.status, c.reason); got != c.want {
			t.Errorf("%q %s %s: %s, want %s", c.reply, c.status, c.reason, got, c.want)
		}
	}
}

func BenchmarkClassify(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Classify("554 5.0.0 we have decided not to take this, and none of the words says why", "5.0.0", ReplyPerm)
	}
}
