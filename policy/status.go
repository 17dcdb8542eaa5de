package policy

import "tlsrelay/events"

// Status gives the enhanced status code (RFC 3463) of a demand that was not met:
// for a message that is tried again, or, if final, for one that is blocked. The
// DSN, the event and the log have the same code. DECISIONS.md lists them.
func Status(reason events.Reason, from Source, final bool) string {
	s := finalStatus(reason, from)
	if final {
		return s
	}
	// While a message is tried again, missing encryption is 4.7.4, as in Postfix.
	if s == "5.7.10" || s == "5.7.30" {
		return "4.7.4"
	}
	return "4" + s[1:]
}

func finalStatus(reason events.Reason, from Source) string {
	switch reason {
	case events.StartTLSNotOffered, events.StartTLSRefused, events.StartTLSTempfail, events.EHLOUnsupported:
		return "5.7.10"
	case events.RequireTLSUnsupported:
		return "5.7.30" // RFC 8689 §7
	case events.TLSVersion, events.ForwardSecrecy:
		return "5.7.4"
	}
	if from == FromMessage && !isCertificate(reason) {
		return "5.7.10" // RFC 8689 §4.2.1: no TLS session could be had
	}
	return "5.7.5"
}

func isCertificate(r events.Reason) bool {
	switch r {
	case events.CertUntrusted, events.CertExpired, events.CertNotYetValid, events.CertName,
		events.CertWeakKey, events.CertWeakSig, events.CertUsage, events.MXUnauthenticated:
		return true
	}
	return false
}
