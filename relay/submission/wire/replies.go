package wire

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"tlsrelay/relay/submission/content"
)

var crlf = []byte("\r\n")

// Write takes replies from go-smtp.
func (c *Conn) Write(b []byte) (int, error) {
	if !c.gone && !c.moved {
		c.reply = append(c.reply, b...)
	}
	return len(b), nil
}

// finishReply translates what go-smtp has answered to the last command.
func (c *Conn) finishReply() {
	if len(c.reply) == 0 {
		return
	}
	if len(c.unsent) > maxUnsent {
		c.flush()
	}
	c.more = bytes.HasPrefix(c.reply, []byte("334"))
	switch {
	case c.verb == "" && c.upgraded: // RFC 3207: no second greeting
	default:
		c.translate(c.reply)
	}
	c.reply = c.reply[:0]
}

// maxUnsent is how many octets of replies gather before they are sent. A few
// packets save all that there is to save, and there may be thousands of
// connections.
const maxUnsent = 4 << 10

func (c *Conn) flush() {
	if len(c.unsent) == 0 {
		return
	}
	var w io.Writer = c.Socket
	if c.tls != nil {
		w = c.tls
	}
	// If this fails, the next read fails, and ends the conversation.
	_, _ = w.Write(c.unsent)
	c.unsent = c.unsent[:0]
	if cap(c.unsent) > 2*maxUnsent {
		c.unsent = nil
	}
}

// say adds a reply.
func (c *Conn) say(reply string) {
	c.unsent = append(append(c.unsent, reply...), "\r\n"...)
}

// ourTexts replaces go-smtp's replies, by verb: the codes are those of RFC 5321
// §4.3.2, and clients of SendGrid know the texts. A reply that a later go-smtp
// words otherwise comes through as it is. The session gives its own replies to
// AUTH and DATA, as errors.
var ourTexts = map[string][]struct{ theirs, ours string }{
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
		{"552 5.3.4 ", "552 5.3.4 " + content.ErrTooBig.Text},
	},
	"AUTH": {
		{"502 5.5.1 ", "503 5.5.1 Bad sequence of commands"},
		{"502 5.5.4 ", "501 5.5.4 AUTH needs a mechanism"},
		{"454 4.7.0 Invalid base64", "501 5.5.2 Not base64"},
		{"501 5.0.0 ", "501 5.7.0 Authentication cancelled"},
	},
	"QUIT": {{"221 ", "221 2.0.0 See you later"}},
}

// translate adds go-smtp's reply to c.verb, in our text where there is one.
func (c *Conn) translate(reply []byte) {
	host := c.config.Hostname
	switch {
	case c.verb == "" && bytes.HasPrefix(reply, []byte("220 ")):
		c.say("220 " + host + " ESMTP service ready")
		return
	case c.verb == "HELO" && bytes.HasPrefix(reply, []byte("250 ")):
		c.say("250 " + host)
		return
	case c.verb == "EHLO" && bytes.HasPrefix(reply, []byte("250-")):
		c.unsent = append(c.unsent, c.extensions()...)
		return
	case c.verb == "MAIL" && bytes.HasPrefix(reply, []byte("501 5.5.4 Unable to parse SIZE")) && declaresSize(c.line):
		c.say("552 5.3.4 " + content.ErrTooBig.Text)
		return
	}
	for _, w := range ourTexts[c.verb] {
		if bytes.HasPrefix(reply, []byte(w.theirs)) && bytes.Count(reply, []byte("\n")) == 1 {
			c.say(w.ours)
			return
		}
	}
	c.unsent = appendFit(c.unsent, reply)
}

// maxReplyLine is the longest line of a reply, with its line end, in octets
// (RFC 5321 §4.5.3.1.5).
const maxReplyLine = 512

// appendFit adds a reply that may quote the client. It replaces what is not
// printable ASCII (RFC 5321 §4.2), and cuts long lines.
func appendFit(unsent, reply []byte) []byte {
	for line := range bytes.SplitSeq(bytes.TrimSuffix(reply, crlf), crlf) {
		for _, c := range line[:min(len(line), maxReplyLine-len(crlf))] {
			if c < ' ' || c > '~' {
				c = '?'
			}
			unsent = append(unsent, c)
		}
		unsent = append(unsent, crlf...)
	}
	return unsent
}

// declaresSize reports whether the SIZE of a MAIL command is a number. RFC 1870 §4
// allows twenty digits, and go-smtp reads 32 bits.
func declaresSize(command string) bool {
	for _, word := range strings.Fields(command) {
		key, value, _ := strings.Cut(word, "=")
		if strings.EqualFold(key, "SIZE") {
			return value != "" && len(value) <= 20 && strings.Trim(value, "0123456789") == ""
		}
	}
	return false
}

// extensions is the reply to EHLO. Its first word is our name, and not the
// client's, which go-smtp greets (RFC 5321 §4.1.1.1).
func (c *Conn) extensions() []byte {
	var b bytes.Buffer
	line := func(text string) { fmt.Fprintf(&b, "250-%s\r\n", text) }
	line(c.config.Hostname)
	line("PIPELINING")
	line("8BITMIME")
	line("SMTPUTF8")
	line("SIZE " + strconv.FormatInt(c.config.MaxMessageBytes, 10))
	line("CHUNKING")
	line("DSN")
	if c.tls == nil && c.config.TLS != nil {
		line("STARTTLS")
	}
	if c.tls != nil {
		line("REQUIRETLS")
	}
	if c.AuthAllowed() {
		line("AUTH PLAIN LOGIN")
	}
	b.WriteString("250 ENHANCEDSTATUSCODES\r\n")
	return b.Bytes()
}
