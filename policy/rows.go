package policy

import (
	"slices"

	"tlsrelay/events"
)

// Row is one row of the decision table: what a host was seen to do, and what that
// can come to.
type Row struct {
	Name string
	// Words are for people, and go on from the host's name: "mx.example.com offers
	// no STARTTLS".
	Words string
	// Gives is every pair of class and reason that Judge gives with this row. They
	// are the label pairs of a metric, so that none may be missing.
	Gives []Finding
}

// Finding is the evidence of one verdict and its reason.
type Finding struct {
	Class  Evidence
	Reason events.Reason
}

// Rows gives all rows that Judge knows, in the order in which a connection meets
// them. A test holds both to each other.
func Rows() []Row { return slices.Clone(rows) }

var rows = []Row{
	{"A1", "cannot be reached, or does not greet", []Finding{
		{Unreachable, events.ConnectFail}, {Unreachable, events.GreetingFail}, {Unreachable, events.Internal}}},
	{"A2", "greets with 4xx: it takes no mail at the moment", []Finding{{Unreachable, events.GreetingFail}}},
	{"A3", "greets with 5xx: it takes no mail from this relay", []Finding{{Unreachable, events.GreetingFail}}},
	{"A4", "offers no STARTTLS", []Finding{{OK, events.NoReason}, {Conclusive, events.StartTLSNotOffered}}},
	{"A5", "does not know EHLO, and so no STARTTLS", []Finding{{OK, events.NoReason}, {Conclusive, events.EHLOUnsupported}}},
	{"A5n", "refuses the name of this relay in EHLO", []Finding{{Unreachable, events.NameRefused}}},
	{"A6", "refuses EHLO", []Finding{{Unreachable, events.EHLOFail}, {Inconclusive, events.EHLOFail}}},
	{"A7", "puts EHLO off, or loses the connection there", []Finding{{Unreachable, events.EHLOFail}}},
	{"A8", "lists a STARTTLS that something on the way has masked", []Finding{
		{OK, events.NoReason}, {Suspicious, events.StartTLSMasked}}},

	{"B1", "puts STARTTLS off with 4xx", []Finding{{Inconclusive, events.StartTLSTempfail}}},
	{"B2", "closes the connection at STARTTLS with 421", []Finding{{Unreachable, events.StartTLSTempfail}}},
	{"B3", "offers STARTTLS and refuses it with 5xx", []Finding{{Conclusive, events.StartTLSRefused}}},
	{"B4", "answers STARTTLS with what is no answer to it", []Finding{{Inconclusive, events.StartTLSTempfail}}},
	{"B5", "sent octets in clear along with its answer to STARTTLS: somebody may have put them there", []Finding{
		{Suspicious, events.StartTLSInjection}}},
	{"B6", "closes the connection where the TLS handshake begins", []Finding{{Inconclusive, events.TLSClosed}}},
	{"B7", "falls silent where the TLS handshake begins", []Finding{{Inconclusive, events.TLSTimeout}}},
	{"B8", "answers the TLS handshake with something else", []Finding{{Inconclusive, events.TLSNotTLS}}},

	{"C1", "speaks no version of TLS that is high enough", []Finding{{Conclusive, events.TLSVersion}}},
	{"C2", "refuses the TLS handshake, or has no cipher suite that will do", []Finding{
		{Conclusive, events.TLSHandshake}, {Inconclusive, events.TLSHandshake}, {Conclusive, events.ForwardSecrecy}}},
	{"C3", "breaks the TLS handshake off", []Finding{
		{Inconclusive, events.TLSHandshake}, {Suspicious, events.TLSDowngrade}}},
	{"C4", "does not know its own name in the TLS handshake", []Finding{{Conclusive, events.TLSHandshake}}},
	{"C5", "wants a certificate of ours in the TLS handshake", []Finding{{Conclusive, events.ClientCertRequired}}},
	{"C6", "has TLS that is beyond what this relay can do", []Finding{{Conclusive, events.TLSLocalLimit}}},
	{"C7", "has a certificate that is not valid", []Finding{{OK, events.NoReason},
		{Conclusive, events.CertUntrusted}, {Conclusive, events.CertExpired}, {Conclusive, events.CertNotYetValid},
		{Conclusive, events.CertName}, {Conclusive, events.CertWeakKey}, {Conclusive, events.CertWeakSig},
		{Conclusive, events.CertUsage}}},
	{"C8", "completes the TLS handshake and fails at the next command", []Finding{
		{Inconclusive, events.TLSClosed}, {Inconclusive, events.TLSTimeout}, {Inconclusive, events.EHLOFail}}},
	{"C8r", "fails where a session of earlier is resumed: tried again without", []Finding{
		{Unreachable, events.TLSClosed}, {Unreachable, events.TLSTimeout}, {Unreachable, events.TLSNotTLS},
		{Unreachable, events.TLSVersion}, {Unreachable, events.TLSHandshake}, {Unreachable, events.TLSLocalLimit},
		{Unreachable, events.ClientCertRequired}, {Unreachable, events.ForwardSecrecy},
		{Unreachable, events.CertUntrusted}, {Unreachable, events.CertExpired}, {Unreachable, events.CertNotYetValid},
		{Unreachable, events.CertName}, {Unreachable, events.CertWeakKey}, {Unreachable, events.CertWeakSig},
		{Unreachable, events.CertUsage}, {Unreachable, events.EHLOFail}, {Unreachable, events.NameRefused},
		{Unreachable, events.SessionLost}, {Unreachable, events.ReplyTemp}, {Unreachable, events.ReplyPerm}}},
	{"C9", "is encrypted, and lacks something else that is demanded", []Finding{
		{Conclusive, events.RequireTLSUnsupported}, {Conclusive, events.MXUnauthenticated}}},
	{"ENC", "is encrypted, with a valid certificate", []Finding{{OK, events.NoReason}}},
	{"C11", "lost the connection while the message was handed over", []Finding{{Unreachable, events.SessionLost}}},
	{"C12", "takes no mail in clear, and its TLS failed", []Finding{{Inconclusive, events.StartTLSTempfail}}},
}

// Words says what the row of v means, for people, going on from the host's name;
// "" for a row that nobody knows.
func (v Verdict) Words() string {
	for _, r := range rows {
		if r.Name == v.Row {
			return r.Words
		}
	}
	return ""
}

// Words says what a class of evidence means for a demand, for people; "" for one
// that nobody knows.
func (e Evidence) Words() string {
	switch e {
	case OK:
		return "good enough"
	case Conclusive:
		return "it cannot do better"
	case Inconclusive:
		return "it may do better another time"
	case Unreachable:
		return "nothing is known of its TLS"
	case Suspicious:
		return "somebody may have tampered with the connection"
	}
	return ""
}

// Words says what the mail of a class demands, for people; "" for one that nobody
// knows.
func (c Class) Words() string {
	switch c {
	case ClassOpportunistic:
		return "TLS where possible"
	case ClassEncrypt:
		return "TLS demanded"
	case ClassValid:
		return "TLS and a valid certificate demanded"
	}
	return ""
}
