package submission

import (
	"net/netip"
	"time"

	"tlsrelay/policy/domain"
	"tlsrelay/relay"
)

// trace is what the Received field of one message tells.
type trace struct {
	hello    string // as the client gave it, unchecked
	ip       netip.Addr
	host     string // ours
	id       string
	at       time.Time
	esmtp    bool
	authed   bool
	smtputf8 bool
	tls      string        // version and cipher suite, "" in clear
	only     relay.Address // the recipient, if there is but one
}

// received appends the trace field of RFC 5321 §4.4. Who has the API key is
// said nowhere. The recipient is named only when that tells nobody of another.
func (t trace) received(b []byte) []byte {
	b = appendWords(b, "Received: from ", t.client(), " (", literal(t.ip), ")\r\n")
	b = appendWords(b, "\tby ", t.host, " with ", t.protocol(), " id ", t.id)
	if t.tls != "" {
		b = appendWords(b, "\r\n\t(", t.tls, ")")
	}
	// In ASCII, or not at all: the message need not be internationalized.
	if only, ok := t.only.ASCII(); ok && !t.only.IsNull() {
		b = appendWords(b, "\r\n\tfor <", only, ">")
	}
	b = t.at.AppendFormat(appendWords(b, ";\r\n\t"), dateLayout)
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
func (t trace) client() string {
	if name, err := domain.Parse(t.hello); err == nil {
		return name.String()
	}
	return literal(t.ip)
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
func (t trace) protocol() string {
	if !t.esmtp {
		return "SMTP"
	}
	p := "ESMTP"
	if t.smtputf8 {
		p = "UTF8SMTP"
	}
	if t.tls != "" {
		p += "S"
	}
	if t.authed {
		p += "A"
	}
	return p
}

// dateLayout is that of RFC 5322 §3.3.
const dateLayout = "Mon, 02 Jan 2006 15:04:05 -0700"
