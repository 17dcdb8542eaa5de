package content

import (
	"net/netip"
	"time"

	"tlsrelay/policy/domain"
	"tlsrelay/relay"
)

// Envelope is what the added fields tell of a transaction.
type Envelope struct {
	ClientName string     // in its greeting, unchecked
	Client     netip.Addr // where it came from
	Hostname   string     // of this relay
	ID         string     // of the message
	At         time.Time  // it began
	ESMTP      bool       // the greeting was EHLO
	Authed     bool       // by AUTH, and not by its address
	SMTPUTF8   bool
	Secured    string // TLS version and cipher suite, "" in clear

	Recipients []relay.Recipient
}

// received appends the Received field (RFC 5321 §4.4). It does not tell whose API
// key was used. It names the recipient only if there is one, so that no recipient
// learns of another.
func (e *Envelope) received(b []byte) []byte {
	b = appendWords(b, "Received: from ", e.client(), " (", literal(e.Client), ")\r\n")
	b = appendWords(b, "\tby ", e.Hostname, " with ", e.protocol(), " id ", e.ID)
	if e.Secured != "" {
		b = appendWords(b, "\r\n\t(", e.Secured, ")")
	}
	if len(e.Recipients) == 1 {
		// In ASCII or not at all: the message may not be internationalized.
		if only, ok := e.Recipients[0].Address.ASCII(); ok {
			b = appendWords(b, "\r\n\tfor <", only, ">")
		}
	}
	b = e.At.AppendFormat(appendWords(b, ";\r\n\t"), time.RFC1123Z)
	return appendWords(b, "\r\n")
}

func appendWords(b []byte, words ...string) []byte {
	for _, w := range words {
		b = append(b, w...)
	}
	return b
}

// client is the client's own name if that is a domain name, else its address.
// Whatever else a client may say does not belong in a header field.
func (e *Envelope) client() string {
	if name, err := domain.Parse(e.ClientName); err == nil {
		return name.String()
	}
	return literal(e.Client)
}

// literal is the address literal of ip (RFC 5321 §4.1.3).
func literal(ip netip.Addr) string {
	switch {
	case !ip.IsValid():
		return "unknown"
	case ip.Is6():
		return "[IPv6:" + ip.String() + "]"
	}
	return "[" + ip.String() + "]"
}

// protocol is the protocol of the "with" clause (RFC 3848, RFC 6531 §4.3).
func (e *Envelope) protocol() string {
	if !e.ESMTP {
		return "SMTP"
	}
	p := "ESMTP"
	if e.SMTPUTF8 {
		p = "UTF8SMTP"
	}
	if e.Secured != "" {
		p += "S"
	}
	if e.Authed {
		p += "A"
	}
	return p
}
