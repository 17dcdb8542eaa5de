package bounce

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"tlsrelay/policy"
	"tlsrelay/relay"
)

// Options are what a report must know beside the notice.
type Options struct {
	Hostname string          // the reporting MTA, and the domain of its addresses
	Now      time.Time       // Date, and the time of the last attempt
	ID       relay.MessageID // of the report; zero: a new one
}

// part is one part of the multipart/report, its fields without the final
// blank line.
type part struct {
	fields string
	body   []byte
}

// Write makes the report of a notice about m. body is the original; it is
// read, not closed, and may be nil: a report without it is better than none.
func Write(m relay.Message, n relay.Notice, body relay.Body, o Options) relay.Report {
	if o.ID == (relay.MessageID{}) {
		o.ID = relay.NewMessageID(o.Now)
	}
	utf8 := m.SMTPUTF8 && international(m, n)
	c := cleaner{utf8: utf8}
	orig, hasOriginal := original(m, n, body, utf8)
	parts := []part{c.words(m, n, o, hasOriginal, orig.full), c.status(m, n, o)}
	if hasOriginal {
		parts = append(parts, orig.part)
	}
	smtpID := "<" + o.ID.String() + "@" + c.token(o.Hostname) + ">"
	content := assemble(c.header(m, n, o, smtpID), parts, o.ID.String())
	rep := report(m, o, smtpID, content)
	rep.Message.HeadersOnly = !orig.full
	return rep
}

// report wraps the content as a message of our own.
func report(m relay.Message, o Options, smtpID string, content []byte) relay.Report {
	header, _, _ := bytes.Cut(content, []byte("\r\n\r\n"))
	rm := relay.Message{
		ID: o.ID, Account: m.Account, Accepted: o.Now, Size: int64(len(content)), SMTPID: smtpID,
		// The parts may be 8-bit without that; the header and the type of
		// part two may not (RFC 6533 §4).
		SMTPUTF8: !isASCII(header) || bytes.Contains(content, []byte(globalStatus)),
		EightBit: !isASCII(content),
		Report:   true, ReportOf: m.ID, Deliveries: 1,
	}
	// RFC 3461 §4.1: nobody is told what becomes of a report.
	to := []relay.Recipient{{Address: m.From, Notify: relay.NotifyNever}}
	ds := relay.Split(rm, to, func(string) policy.Class { return policy.ClassOpportunistic })
	return relay.Report{Message: rm, Deliveries: ds, Body: content}
}

// international reports whether the report cannot be told in ASCII.
func international(m relay.Message, n relay.Notice) bool {
	if !isASCII(m.From.String()) {
		return true
	}
	return slices.ContainsFunc(n.Recipients, func(r relay.NoticeRecipient) bool {
		return !isASCII(r.Recipient.Address.String()) || !isASCII(r.Recipient.Original)
	})
}

const dateFormat = "Mon, 02 Jan 2006 15:04:05 -0700" // RFC 5322 §3.3

// header gives the fields above the parts, without Content-Type.
func (c cleaner) header(m relay.Message, n relay.Notice, o Options, smtpID string) string {
	var b strings.Builder
	host := c.token(o.Hostname)
	fmt.Fprintf(&b, "From: Mail Delivery System <MAILER-DAEMON@%s>\r\n", host)
	fmt.Fprintf(&b, "To: <%s>\r\n", m.From)
	fmt.Fprintf(&b, "Subject: %s\r\n", subject(n))
	fmt.Fprintf(&b, "Date: %s\r\n", o.Now.Format(dateFormat))
	fmt.Fprintf(&b, "Message-ID: %s\r\n", smtpID)
	if plainID.MatchString(m.SMTPID) {
		fmt.Fprintf(&b, "In-Reply-To: %s\r\nReferences: %s\r\n", m.SMTPID, m.SMTPID)
	}
	b.WriteString("Auto-Submitted: auto-replied\r\n") // RFC 3834 §5
	b.WriteString("MIME-Version: 1.0\r\n")
	return b.String()
}

// plainID is a Message-ID that is safe to repeat.
var plainID = regexp.MustCompile(`^<[!-;=?-~]{1,250}>$`)

func subject(n relay.Notice) string {
	switch {
	case has(n, relay.ActionFailed):
		return "Undelivered Mail Returned to Sender"
	case has(n, relay.ActionDelayed):
		return "Delayed Mail (still being retried)"
	}
	return "Successful Mail Delivery Report"
}

func has(n relay.Notice, a relay.Action) bool {
	return slices.ContainsFunc(n.Recipients, func(r relay.NoticeRecipient) bool { return r.Action == a })
}

// assemble puts the parts between boundaries that none of them contains.
func assemble(header string, parts []part, id string) []byte {
	boundary := "=_" + id
	for try := 0; slices.ContainsFunc(parts, func(p part) bool { return bytes.Contains(p.body, []byte(boundary)) }); try++ {
		boundary = fmt.Sprintf("=_%s_%d", id, try)
	}
	var b bytes.Buffer
	b.WriteString(header)
	fmt.Fprintf(&b, "Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"%s\"\r\n", boundary)
	if slices.ContainsFunc(parts, func(p part) bool { return !isASCII(p.body) }) {
		b.WriteString("Content-Transfer-Encoding: 8bit\r\n")
	}
	b.WriteString("\r\nThis is a delivery status notification in MIME format.\r\n")
	for _, p := range parts {
		fmt.Fprintf(&b, "\r\n--%s\r\n%s", boundary, p.fields)
		// RFC 2045 §6.1: without the field, 7bit is meant.
		if !isASCII(p.body) {
			b.WriteString("Content-Transfer-Encoding: 8bit\r\n")
		}
		b.WriteString("\r\n")
		b.Write(p.body)
	}
	fmt.Fprintf(&b, "\r\n--%s--\r\n", boundary)
	return b.Bytes()
}

func isASCII[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// none stands for what is not known in a field of several words.
func none(s string) string { return cmp.Or(s, "-") }
