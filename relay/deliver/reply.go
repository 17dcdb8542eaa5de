package deliver

import (
	"bufio"
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"

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

// errReply is the error of bytes that are no SMTP reply, or too many of them.
var errReply = errors.New("malformed reply")

// reply is one reply as read. Its text is valid until the next is read.
type reply struct {
	code int
	text []byte // without the codes, lines separated by '\n'
}

// readReply reads one reply (RFC 5321 §4.2). It takes a bare "250", LF alone
// as a line end and any text, but no line or reply beyond the bounds, no code
// outside 200 to 599, and no change of code within a reply: what follows
// such a thing cannot be trusted to be in step. The text is appended to buf[:0].
func readReply(r *bufio.Reader, buf []byte) (reply, error) {
	rep := reply{text: buf[:0]}
	for n, size := 0, 0; n < maxReplyLines; n++ {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return rep, errReply
		}
		if err != nil {
			return rep, err
		}
		if size += len(line); size > maxReplyBytes {
			return rep, errReply
		}
		code, more, text, ok := splitReplyLine(bytes.TrimRight(line, "\r\n"))
		if !ok || n > 0 && code != rep.code {
			return rep, errReply
		}
		rep.code = code
		if n > 0 {
			rep.text = append(rep.text, '\n')
		}
		rep.text = append(rep.text, text...)
		if !more {
			return rep, nil
		}
	}
	return rep, errReply
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
	return 0, false, nil, false
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func (r reply) positive() bool { return r.code >= 200 && r.code < 300 }

// lines calls yield for every line of the text.
func (r reply) lines(yield func([]byte) bool) {
	bytes.SplitSeq(r.text, []byte{'\n'})(yield)
}

// export makes the reply that is kept and shown: one line, bounded, without
// control characters, its enhanced status code taken off the text.
func (r reply) export() relay.Reply {
	out := relay.Reply{Code: r.code}
	var b strings.Builder
	for line := range r.lines {
		enhanced, rest := cutEnhanced(line)
		if enhanced != "" && enhanced[0] == byte('0'+r.code/100) {
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
	if len(head) < 5 || len(head) > 9 || head[1] != '.' {
		return "", line
	}
	if c := head[0]; c != '2' && c != '4' && c != '5' {
		return "", line
	}
	subject, detail, ok := bytes.Cut(head[2:], []byte{'.'})
	if !ok || !isNumber(subject) || !isNumber(detail) {
		return "", line
	}
	return string(head), rest
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

// printable makes a stranger's words safe for logs, events and reports.
func printable(s string) string {
	if len(s) > maxReplyText {
		cut := maxReplyText
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut]
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == utf8.RuneError || r == 0x2028 || r == 0x2029 {
			return '?'
		}
		return r
	}, s)
}
