package bounce

import (
	"cmp"
	"fmt"
	"strings"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
)

// The two types of the part for programs: RFC 3464 §2.1, RFC 6533 §4.
const (
	plainStatus  = "message/delivery-status"
	globalStatus = "message/global-delivery-status"
)

// status writes the part for programs.
func (c cleaner) status(m relay.Message, n relay.Notice, o Options) part {
	var b strings.Builder
	b.WriteString(fold("Reporting-MTA: ", " ", "dns; "+c.token(o.Hostname)))
	if id := c.text(m.EnvelopeID); id != "" {
		b.WriteString(fold("Original-Envelope-Id: ", " ", id))
	}
	fmt.Fprintf(&b, "Arrival-Date: %s\r\n", m.Accepted.Format(dateFormat))
	for _, r := range n.Recipients {
		b.WriteString("\r\n")
		c.recipient(&b, r, n, o)
	}
	typ := plainStatus
	if c.utf8 {
		typ = globalStatus
	}
	return part{"Content-Description: Delivery report\r\nContent-Type: " + typ + "\r\n", []byte(b.String())}
}

func (c cleaner) recipient(b *strings.Builder, r relay.NoticeRecipient, n relay.Notice, o Options) {
	if r.Recipient.Original != "" {
		b.WriteString(fold("Original-Recipient: ", " ",
			c.token(cmp.Or(r.Recipient.OriginalType, "rfc822"))+"; "+c.text(r.Recipient.Original)))
	}
	addr := r.Recipient.Address.String()
	typ := "rfc822"
	if !isASCII(addr) {
		typ = "utf-8" // RFC 6533 §3
	}
	b.WriteString(fold("Final-Recipient: ", " ", typ+"; "+c.text(addr)))
	fmt.Fprintf(b, "Action: %s\r\n", r.Action)
	fmt.Fprintf(b, "Status: %s\r\n", c.token(r.Status))
	if r.RemoteMTA != "" {
		b.WriteString(fold("Remote-MTA: ", " ", "dns; "+c.token(r.RemoteMTA)))
	}
	words, remote := diagnostic(r)
	if text := c.text(words); text != "" {
		kind := "x-tlsrelay; "
		if remote {
			kind = "smtp; "
		}
		b.WriteString(fold("Diagnostic-Code: ", " ", kind+text))
	}
	fmt.Fprintf(b, "Last-Attempt-Date: %s\r\n", o.Now.Format(dateFormat))
	if r.Action == relay.ActionDelayed && !n.WillRetryTo.IsZero() {
		fmt.Fprintf(b, "Will-Retry-Until: %s\r\n", n.WillRetryTo.Format(dateFormat))
	}
	for _, h := range r.Hosts {
		b.WriteString(fold("X-Tlsrelay-Host: ", " ", c.evidence(h)))
	}
}

// evidence tells of one host: name, address, reason token, TLS version.
func (c cleaner) evidence(h relay.HostEvidence) string {
	return strings.Join([]string{
		none(c.token(h.Host)), none(c.token(h.Address)), none(string(h.Verdict.Reason)), none(version(h).String()),
	}, " ")
}

func version(h relay.HostEvidence) policy.Version {
	if h.TLS == nil {
		return 0
	}
	return h.TLS.Version
}

// diagnostic gives the words about a recipient, and whether a host said them.
// Those of a TLS block begin with the one text that bounce parsers know, whatever
// the host said beside it.
func diagnostic(r relay.NoticeRecipient) (words string, remote bool) {
	if !tlsBlock(r) || strings.HasPrefix(r.Diagnostic, events.TLSBlocked) {
		return r.Diagnostic, r.Remote
	}
	if r.Diagnostic == "" {
		return events.TLSBlocked, false
	}
	return events.TLSBlocked + ": " + r.Diagnostic, false
}

// tlsBlock reports whether a demand of the sender's side ended it.
func tlsBlock(r relay.NoticeRecipient) bool { return r.Demand }
