package bounce

import (
	"fmt"
	"strings"

	"tlsrelay/events"
	"tlsrelay/relay"
)

// words writes the part for people.
func (c cleaner) words(m relay.Message, n relay.Notice, o Options, attached, full bool) part {
	var b strings.Builder
	b.WriteString(fold("", "", "This is the mail relay at "+c.token(o.Hostname)+"."))
	c.group(&b, n, relay.ActionFailed, "Your message could not be delivered to the recipients below. No further attempt will be made.")
	until := ""
	if !n.WillRetryTo.IsZero() {
		until = " until " + n.WillRetryTo.Format(dateFormat)
	}
	c.group(&b, n, relay.ActionDelayed, "Your message could not be delivered to the recipients below yet. It is being retried"+until+"; you need not send it again.")
	c.group(&b, n, relay.ActionRelayed, "Your message was delivered to the mail servers of the recipients below. They send no further report.")
	b.WriteString("\r\n")
	b.WriteString(fold("", "", closing(m, n, attached, full)))
	charset := "us-ascii"
	if c.utf8 {
		charset = "utf-8"
	}
	return part{
		"Content-Description: Notification\r\nContent-Type: text/plain; charset=" + charset + "\r\n",
		[]byte(b.String()),
	}
}

// group writes of all recipients with the same action, if there are any.
func (c cleaner) group(b *strings.Builder, n relay.Notice, a relay.Action, opening string) {
	if !has(n, a) {
		return
	}
	b.WriteString("\r\n")
	b.WriteString(fold("", "", opening))
	for _, r := range n.Recipients {
		if r.Action == a {
			c.person(b, r)
		}
	}
}

func (c cleaner) person(b *strings.Builder, r relay.NoticeRecipient) {
	fmt.Fprintf(b, "\r\n  <%s>\r\n", c.text(r.Recipient.Address.String()))
	if r.Recipient.Original != "" && r.Recipient.Original != r.Recipient.Address.String() {
		b.WriteString(fold("    ", "    ", "(you wrote to "+c.text(r.Recipient.Original)+")"))
	}
	if tlsBlock(r) {
		b.WriteString(fold("    ", "    ", events.TLSBlocked+": your account, or the message itself, demands a secure connection, and no mail server of this recipient offers one that is good enough. The message was not sent."))
		for _, h := range r.Hosts {
			b.WriteString(fold("    - ", "      ", c.host(h)))
		}
		return
	}
	text := c.text(r.Diagnostic)
	if text == "" {
		return
	}
	said := "Reason: "
	if r.Remote {
		said = "The mail server " + c.token(r.RemoteMTA) + " answered: "
	}
	b.WriteString(fold("    ", "    ", said+text))
}

// host tells of one host in words.
func (c cleaner) host(h relay.HostEvidence) string {
	name := none(c.token(h.Host))
	if h.Address != "" {
		name += " [" + c.token(h.Address) + "]"
	}
	return name + " " + reason(h.Verdict.Reason) + " (" + none(string(h.Verdict.Reason)) + ")"
}

func closing(m relay.Message, n relay.Notice, attached, full bool) string {
	switch {
	case !attached:
		return "The message cannot be attached."
	case full:
		return isAttached
	case n.HeadersOnly || m.RequireTLS:
		return isKeptBack
	}
	return "The headers of the message are attached."
}

// reason puts a token into words that fit after a host's name.
func reason(r events.Reason) string {
	switch r {
	case events.StartTLSNotOffered, events.EHLOUnsupported:
		return "does not offer encryption"
	case events.StartTLSRefused, events.StartTLSTempfail:
		return "offered encryption and then refused it"
	case events.StartTLSMasked, events.StartTLSInjection, events.TLSDowngrade:
		return "showed signs of a tampered connection"
	case events.TLSVersion:
		return "does not speak a recent enough version of TLS"
	case events.ForwardSecrecy:
		return "does not offer forward secrecy"
	case events.TLSClosed, events.TLSTimeout, events.TLSNotTLS, events.TLSHandshake, events.TLSLocalLimit, events.ClientCertRequired:
		return "could not agree on encryption with us"
	case events.CertUntrusted:
		return "has a certificate from an unknown authority"
	case events.CertExpired:
		return "has a certificate that has expired"
	case events.CertNotYetValid:
		return "has a certificate that is not valid yet"
	case events.CertName:
		return "has a certificate for another name"
	case events.CertWeakKey, events.CertWeakSig:
		return "has a certificate that is too weak"
	case events.CertUsage:
		return "has a certificate that is not meant for servers"
	case events.RequireTLSUnsupported:
		return "does not promise to keep the message secure (REQUIRETLS)"
	case events.MXUnauthenticated:
		return "cannot be proven to be the recipient's (its name comes from unsigned DNS)"
	case events.ConnectFail, events.GreetingFail, events.EHLOFail, events.HostAddress, events.HostPrivate, events.HostUntried:
		return "could not be reached"
	case events.NameRefused:
		return "does not accept the name of this relay"
	}
	return "could not be used"
}

const (
	isAttached = "The message is attached."
	isKeptBack = "Only the headers of the message are attached, because its content must not travel over a connection that may be insecure."
)
