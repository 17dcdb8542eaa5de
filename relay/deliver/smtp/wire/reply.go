package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"

	"tlsrelay/events"
	"tlsrelay/relay"
)

// Bounds on one reply. RFC 5321 §4.5.3.1.5 says 512 octets a line; hosts in
// the field write longer ones. The time bound is the connection's.
const (
	maxReplyLine  = 4096
	maxReplyLines = 200
	maxReplyBytes = 32 << 10
	maxReplyText  = 1024 // of what is kept for people
)

// ErrReply is the error of bytes that are no SMTP reply, or too many of them.
var ErrReply = errors.New("malformed reply")

// ErrStep is that of replies that may answer other commands than they seem to.
var ErrStep = fmt.Errorf("%w: out of step", ErrReply)

// ErrNoCode is that of a line without a code where a reply should begin.
var ErrNoCode = fmt.Errorf("%w: no code", ErrReply)

// Reply is one reply as read. Its text is valid until the next is read.
type Reply struct {
	Code    int
	Lines   int
	Mixed   bool   // one line says yes and another says no
	Differs bool   // its lines differ in code
	Text    []byte // without the codes, lines separated by '\n'
}

// readReply reads one reply (RFC 5321 §4.2). It takes a bare "250", LF alone
// as a line end and any text, but no line or reply beyond the bounds, and no
// code outside 200 to 599. The code of a reply is that of its last line, as it
// is for Postfix: hosts do change it in mid-reply (RFC 5321 §4.2.1 lets a
// client go by any line). A line without a code in the middle of a reply is a
// part of its text. The text is appended to buf[:0].
func readReply(r *bufio.Reader, buf []byte) (Reply, error) {
	rep := Reply{Text: buf[:0]}
	yes, no := false, false
	for size := 0; rep.Lines < maxReplyLines; {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return rep, ErrReply
		}
		if err != nil {
			return rep, err
		}
		if size += len(line); size > maxReplyBytes {
			return rep, ErrReply
		}
		line = bytes.TrimRight(line, "\r\n")
		code, more, text, ok := splitReplyLine(line)
		switch {
		case ok:
			rep.Differs = rep.Differs || rep.Code != 0 && rep.Code != code
			rep.Code = code
			yes, no = yes || code < 300, no || code >= 400
			rep.Mixed = yes && no
		case rep.Lines > 0:
			text, more = line, true
		default:
			return rep, ErrNoCode
		}
		if rep.Lines > 0 {
			rep.Text = append(rep.Text, '\n')
		}
		rep.Text = append(rep.Text, text...)
		rep.Lines++
		if !more {
			return rep, nil
		}
	}
	return rep, ErrReply
}

// splitReplyLine reads "250-text", "250 text" and "250".
func splitReplyLine(line []byte) (code int, more bool, text []byte, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isDigit(line[1]) || !isDigit(line[2]) {
		return 0, false, nil, false
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, false, nil, true
	}
	switch line[3] {
	case ' ', '\t':
		return code, false, line[4:], true
	case '-':
		return code, true, line[4:], true
	}
	// The blank after the code is forgotten, too: "250ok".
	return code, false, line[3:], !isDigit(line[3])
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// Positive reports whether the host said yes.
func (r Reply) Positive() bool { return r.Code >= 200 && r.Code < 300 }

// each calls yield for every line of the text.
func (r Reply) each(yield func([]byte) bool) {
	bytes.SplitSeq(r.Text, []byte{'\n'})(yield)
}

// Fingerprint sums up a reply but for what differs from message to message: words
// that have more in them than letters and punctuation are left out, such as ids,
// addresses, times and sizes, but not an enhanced status code.
func (r Reply) Fingerprint() uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a, 64 bits
	h := uint64(offset)
	h = (h ^ uint64(r.Code)) * prime
	for line := range r.each {
		for word := range bytes.FieldsSeq(line) {
			word, _, _ = bytes.Cut(word, []byte{'='}) // of "id=1tSxyz-000abc-1X", the id
			if !isPlainWord(word) && !isEnhanced(word) {
				continue
			}
			for _, c := range word {
				h = (h ^ uint64(c)) * prime
			}
			h = (h ^ ' ') * prime
		}
	}
	return h
}

// isPlainWord reports whether a word is made of letters and punctuation.
func isPlainWord(word []byte) bool {
	for _, c := range word {
		switch {
		case 'a' <= c|0x20 && c|0x20 <= 'z', c == ',', c == '.', c == ':', c == ';', c == '!', c == '\'', c == '-', c == '(', c == ')':
		default:
			return false
		}
	}
	return true
}

// Export makes the reply that is kept and shown: one line, bounded, without
// hidden characters, its enhanced status code taken off the text.
func (r Reply) Export() relay.Reply {
	out := relay.Reply{Code: r.Code}
	var b strings.Builder
	for line := range r.each {
		enhanced, rest := cutEnhanced(line)
		if enhanced != "" && enhanced[0] == byte('0'+r.Code/100) {
			out.Enhanced, line = enhanced, rest
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.Write(line)
	}
	out.Text = printable(b.String())
	return out
}

// cutEnhanced takes an enhanced status code (RFC 2034 §4) off the head of a line.
func cutEnhanced(line []byte) (code string, rest []byte) {
	head, rest, _ := bytes.Cut(line, []byte{' '})
	if !isEnhanced(head) {
		return "", line
	}
	return string(head), rest
}

// isEnhanced reports whether a word is an enhanced status code.
func isEnhanced(word []byte) bool {
	if len(word) < 5 || len(word) > 9 || word[1] != '.' {
		return false
	}
	if c := word[0]; c != '2' && c != '4' && c != '5' {
		return false
	}
	subject, detail, ok := bytes.Cut(word[2:], []byte{'.'})
	return ok && isNumber(subject) && isNumber(detail)
}

// isNumber reports whether b is one to three digits (RFC 3463 §2).
func isNumber(b []byte) bool {
	if len(b) == 0 || len(b) > 3 {
		return false
	}
	for _, c := range b {
		if !isDigit(c) {
			return false
		}
	}
	return true
}

// printable makes a stranger's text safe for logs, events and reports, and bounds it.
func printable(s string) string { return events.Printable(events.Clip(s, maxReplyText)) }
