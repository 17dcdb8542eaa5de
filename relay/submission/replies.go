package submission

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"

	"tlsrelay/relay"
)

const (
	tooBig       = "Message is too big"
	headerTooBig = "The header section is too big"
)

// refusal makes a reply; enhanced is "5.7.0". go-smtp sends it as it is, also
// when the code is a 2xx.
func refusal(code int, enhanced, text string) *smtp.SMTPError {
	var e smtp.EnhancedCode
	for i, part := range strings.SplitN(enhanced, ".", 3) {
		e[i], _ = strconv.Atoi(part)
	}
	return &smtp.SMTPError{Code: code, EnhancedCode: e, Message: text}
}

// Replies to an address without meaning.
var (
	badSender    = refusal(501, "5.1.7", "Bad sender address syntax")
	badRecipient = refusal(501, "5.1.3", "Bad recipient address syntax")
)

// queued is the reply to a message that we answer for now.
func queued(id relay.MessageID) *smtp.SMTPError {
	return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0}, Message: "Ok: queued as " + id.String()}
}

// replyTo translates what the rest of the relay says into a reply. Whatever
// is unknown may pass by itself, and its text is nobody's business.
func replyTo(err error) *smtp.SMTPError {
	var reply *smtp.SMTPError
	switch {
	case errors.As(err, &reply):
		return reply
	case errors.Is(err, relay.ErrNoSpace):
		return refusal(452, "4.3.1", "Insufficient storage, try again later")
	case errors.Is(err, relay.ErrAccountFull):
		return refusal(452, "4.3.1", "Too much mail of this account is waiting, try again later")
	case errors.Is(err, context.Canceled):
		return refusal(451, "4.3.2", "Service shutting down, try again later")
	}
	return refusal(451, "4.3.0", "The message could not be stored, try again later")
}

// ourWords replaces go-smtp's words by the contract's (contract §7), by verb.
// A text that go-smtp changes one day comes through unchanged. AUTH's success
// and DATA's are not here: as errors they can be said directly.
var ourWords = map[string][]struct{ theirs, ours string }{
	"MAIL": {
		{"250 ", "250 2.1.0 Sender address accepted"},
		{"501 5.5.2 Was expecting MAIL", "501 5.1.7 Bad sender address syntax"},
		{"500 5.5.4 ", "555 5.5.4 Parameter not recognized or malformed"},
		{"502 5.5.1 ", "503 5.5.1 Bad sequence of commands"},
	},
	"RCPT": {
		{"250 ", "250 2.1.5 Recipient address accepted"},
		{"501 5.5.2 Was expecting RCPT", "501 5.1.3 Bad recipient address syntax: <local@domain> is needed"},
		{"500 5.5.4 ", "555 5.5.4 Parameter not recognized"},
		{"502 5.5.1 ", "503 5.5.1 Bad sequence of commands"},
	},
	"DATA": {
		{"354 ", "354 Continue"},
		{"502 5.5.1 Missing", "503 5.5.1 No valid recipients"},
		{"502 5.5.1 ", "503 5.5.1 Bad sequence of commands"},
	},
	"BDAT": {
		{"502 5.5.1 Missing", "503 5.5.1 No valid recipients"},
		{"552 5.3.4 ", "552 5.3.4 " + tooBig},
	},
	"AUTH": {
		{"502 5.5.1 ", "503 5.5.1 Bad sequence of commands"},
		{"502 5.5.4 ", "501 5.5.4 AUTH needs a mechanism"},
		{"454 4.7.0 Invalid base64", "501 5.5.2 Not base64"},
		{"501 5.0.0 ", "501 5.7.0 Authentication cancelled"},
	},
	"QUIT": {{"221 ", "221 2.0.0 See you later"}},
}

// translate says what go-smtp has replied to c.verb.
func (c *conn) translate(reply []byte) {
	host := c.srv.o.Hostname
	switch {
	case c.verb == "" && bytes.HasPrefix(reply, []byte("220 ")):
		c.say("220 " + host + " ESMTP service ready")
		return
	case c.verb == "HELO" && bytes.HasPrefix(reply, []byte("250 ")):
		c.say("250 " + host)
		return
	case c.verb == "EHLO" && bytes.HasPrefix(reply, []byte("250-")):
		c.wire = append(c.wire, c.extensions()...)
		return
	case c.verb == "MAIL" && bytes.HasPrefix(reply, []byte("501 5.5.4 Unable to parse SIZE")) && declaresSize(c.raw):
		c.say("552 5.3.4 " + tooBig)
		return
	}
	for _, w := range ourWords[c.verb] {
		if bytes.HasPrefix(reply, []byte(w.theirs)) && bytes.Count(reply, []byte("\n")) == 1 {
			c.say(w.ours)
			return
		}
	}
	c.wire = appendFit(c.wire, reply)
}

// maxReplyLine is the length of a line of a reply, its end included (RFC 5321
// §4.5.3.1.5).
const maxReplyLine = 512

// appendFit adds a reply that may quote the client, which may say anything: its lines
// are of printable ASCII (RFC 5321 §4.2), and no longer than they may be.
func appendFit(wire, reply []byte) []byte {
	for line := range bytes.SplitSeq(bytes.TrimSuffix(reply, lineEnd), lineEnd) {
		for _, c := range line[:min(len(line), maxReplyLine-len(lineEnd))] {
			if c < ' ' || c > '~' {
				c = '?'
			}
			wire = append(wire, c)
		}
		wire = append(wire, lineEnd...)
	}
	return wire
}

// declaresSize reports whether a MAIL command has a SIZE that is a number, however
// large: RFC 1870 §4 allows twenty digits, and go-smtp reads 32 bits.
func declaresSize(command string) bool {
	for _, word := range strings.Fields(command) {
		key, value, _ := strings.Cut(word, "=")
		if strings.EqualFold(key, "SIZE") {
			return value != "" && len(value) <= 20 && strings.Trim(value, "0123456789") == ""
		}
	}
	return false
}

// extensions is the reply to EHLO (interface §4). Its first word is our name,
// not the client's (RFC 5321 §4.1.1.1).
func (c *conn) extensions() []byte {
	var b bytes.Buffer
	line := func(text string) { fmt.Fprintf(&b, "250-%s\r\n", text) }
	line(c.srv.o.Hostname)
	line("PIPELINING")
	line("8BITMIME")
	line("SMTPUTF8")
	line("SIZE " + strconv.FormatInt(c.srv.o.MaxMessageBytes, 10))
	line("CHUNKING")
	line("DSN")
	if c.tls == nil && c.srv.o.TLS != nil {
		line("STARTTLS")
	}
	if c.tls != nil {
		line("REQUIRETLS")
	}
	if c.authAllowed() {
		line("AUTH PLAIN LOGIN")
	}
	b.WriteString("250 ENHANCEDSTATUSCODES\r\n")
	return b.Bytes()
}

// authAllowed reports whether a secret may travel over c.
func (c *conn) authAllowed() bool { return c.tls != nil || c.srv.o.AllowPlaintextAuth }
