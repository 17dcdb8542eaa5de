package smtp

import (
	"bytes"
	"io"

	"tlsrelay/relay"
	"tlsrelay/relay/deliver/smtp/wire"
)

// Mail is what transactions carry: a message and its content (RFC 5321 §2.3.1). It is
// used by one attempt at a time.
type Mail struct {
	Message *relay.Message
	Body    relay.Body // read, not closed
	Gate    wire.Gate  // for the content; nil: it may leave
	// Doubted tells that the attempt before this one ended in doubt. A reply that says
	// both yes and no is a refusal this time.
	Doubted bool

	scanned, rcptLine bool // see NamesRecipients
}

// rcptLines looks for a line of a body that begins with RCPT. A host that does not know
// BDAT, or does not discard a chunk that it refuses, runs the content as commands.
// Without a recipient they have no effect.
type rcptLines struct {
	matched int // letters of RCPT, at the beginning of a line; -1: this line has none
	found   bool
}

// Write implements io.Writer.
func (l *rcptLines) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && !l.found {
		if l.matched < 0 {
			i := bytes.IndexByte(p, '\n')
			if i < 0 {
				break
			}
			p, l.matched = p[i+1:], 0
			continue
		}
		switch b := p[0]; {
		case b == '\n':
			l.matched = 0
		case l.matched == 0 && (b == ' ' || b == '\t' || b == '\r'):
		case b|0x20 == "rcpt"[l.matched]:
			l.matched++
			l.found = l.matched == len("rcpt")
		default:
			l.matched = -1
		}
		p = p[1:]
	}
	return n, nil
}

// NamesRecipients reports whether the content could name recipients to a host that runs
// it as commands. Content that cannot be read could.
func (m *Mail) NamesRecipients() bool {
	if !m.scanned {
		var l rcptLines
		_, err := io.Copy(&l, m.Body.NewReader())
		m.scanned, m.rcptLine = true, l.found || err != nil
	}
	return m.rcptLine
}
