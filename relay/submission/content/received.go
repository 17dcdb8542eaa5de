package content

import (
	"net/netip"
	"time"

	"tlsrelay/policy/domain"
	"tlsrelay/relay"
)

// Envelope is what the Received field tells of a transaction.
type Envelope struct {
	Hello    string // the client's name as it gave it, unchecked
	Client   netip.Addr
	Hostname string // of this relay
	ID       string
	At       time.Time
	ESMTP    bool
	Authed   bool // with AUTH, and not by its address
	SMTPUTF8 bool
	Secured  string // TLS version and cipher suite, "" in clear

	Recipients []relay.Recipient
}

// received appends the trace field of RFC 5321 §4.4. Who has the API key is
// said nowhere. The recipient is named only when that tells nobody of another.
func (e *Envelope) received(b []byte) []byte {
	b = appendWords(b, "Received: from ", e.client(), " (", literal(e.Client), ")\r\n")
	b = appendWords(b, "\tby ", e.Hostname, " with ", e.protocol(), " id ", e.ID)
	if e.Secured != "" {
		b = appendWords(b, "\r\n\t(", e.Secured, ")")
	}
	if len(e.Recipients) == 1 {
		// In ASCII, or not at all: the message need not be internationalized.
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

// client is the client's own name if it is one, else its address: the field
// is no place for whatever a client likes to write there.
func (e *Envelope) client() string {
	if name, err := domain.Parse(e.Hello); err == nil {
		return name.String()
	}
	return literal(e.Client)
}

// literal is an address literal (RFC 5321 §4.1.3).
func literal(ip netip.Addr) string {
	switch {
	case !ip.IsValid():
		return "unknown"
	case ip.Is6():
		return "[IPv6:" + ip.String() + "]"
	}
	return "[" + ip.String() + "]"
}

// protocol is the "with" clause (RFC 3848, RFC 6531 §4.3).
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
