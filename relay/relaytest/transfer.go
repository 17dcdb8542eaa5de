package relaytest

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"time"
)

// path takes "FROM:<a@b> X=Y" apart.
func path(arg, prefix string) (address string, params []string, ok bool) {
	if len(arg) < len(prefix) || !strings.EqualFold(arg[:len(prefix)], prefix) {
		return "", nil, false
	}
	rest := arg[len(prefix):]
	if !strings.HasPrefix(rest, "<") {
		return "", nil, false
	}
	end := closing(rest)
	if end < 0 {
		return "", nil, false
	}
	return rest[1:end], strings.Fields(rest[end+1:]), true
}

// closing finds the > that ends a path; one inside a quoted local part does not.
func closing(s string) int {
	quoted := false
	for i := 1; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '>' && !quoted:
			return i
		}
	}
	return -1
}

// parameterKeyword says which EHLO keyword allows a parameter.
var parameterKeyword = map[string]string{
	"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "REQUIRETLS": "REQUIRETLS",
	"RET": "DSN", "ENVID": "DSN", "NOTIFY": "DSN", "ORCPT": "DSN", "AUTH": "AUTH",
}

// unlisted finds a parameter that the host did not offer (RFC 5321 §4.1.1.11).
func (s *session) unlisted(params []string) string {
	for _, p := range params {
		name, _, _ := strings.Cut(p, "=")
		if k, ok := parameterKeyword[strings.ToUpper(name)]; !ok || !s.lists(k) {
			return name
		}
	}
	return ""
}

func (s *session) mailFrom(arg string) bool {
	address, params, ok := path(arg, "FROM:")
	bad := s.unlisted(params)
	switch {
	case s.helo == "":
		s.say("503 5.5.1 Say EHLO first")
		return true
	case s.script.NeedTLS && !s.inTLS:
		s.say("530 5.7.0 Must issue a STARTTLS command first")
		return true
	case s.mail:
		s.breach("MAIL inside a transaction")
		s.say("503 5.5.1 Nested MAIL")
		return true
	case !ok:
		s.breach("syntax of MAIL")
		s.say("501 5.5.4 Syntax: MAIL FROM:<address>")
		return true
	case bad != "":
		s.breach("parameter " + bad + " was not listed")
		s.say("555 5.5.4 Unsupported option: " + bad)
		return true
	}
	if s.script.MaxMails > 0 && s.taken >= s.script.MaxMails {
		s.say("452 4.5.3 Too many messages on this connection")
		return true
	}
	code, alive := s.reply("mail", s.script.Mail, "250 2.1.0 Ok")
	if code/100 == 2 {
		s.mail, s.from, s.params = true, address, params
	}
	return alive
}

func (s *session) rcptTo(arg string) bool {
	address, params, ok := path(arg, "TO:")
	bad := s.unlisted(params)
	switch {
	case !s.mail:
		s.say("503 5.5.1 Need MAIL first")
		return true
	case !ok:
		s.breach("syntax of RCPT")
		s.say("501 5.5.4 Syntax: RCPT TO:<address>")
		return true
	case bad != "":
		s.breach("parameter " + bad + " was not listed")
		s.say("555 5.5.4 Unsupported option: " + bad)
		return true
	case s.script.MaxRcpt > 0 && len(s.rcpts) >= s.script.MaxRcpt:
		s.say("452 4.5.3 Too many recipients")
		return true
	}
	step, r := "rcpt", s.script.Rcpt
	if own, ok := s.script.Rcpts[strings.ToLower(address)]; ok {
		step, r = "rcpt "+address, own
	}
	if s.script.MaxRefused > 0 && s.refused >= s.script.MaxRefused {
		s.say("421 4.5.2 Too many unknown recipients")
		s.hangUp()
		return false
	}
	code, alive := s.reply(step, r, "250 2.1.5 Ok")
	if code/100 == 2 {
		s.rcpts = append(s.rcpts, Recipient{address, params})
	} else {
		s.refused++
	}
	return alive
}

func (s *session) data() bool {
	if len(s.rcpts) == 0 || s.chunked {
		s.say("503 5.5.1 No valid recipients")
		return true
	}
	code, alive := s.reply("data", s.script.Data, "354 End data with <CR><LF>.<CR><LF>")
	if !alive || code != 354 {
		return alive
	}
	if s.flush() != nil || !s.readBody() {
		return false
	}
	return s.finish()
}

// readBody reads up to the final dot, undoing dot-stuffing. false: the
// connection is over.
func (s *session) readBody() bool {
	fresh := true // at the start of a line
	for {
		b, err := s.br.ReadSlice('\n')
		if len(b) == 0 && err != nil {
			return false
		}
		if fresh && b[0] == '.' {
			if len(b) == 3 && b[1] == '\r' {
				return true
			}
			b = b[1:]
		}
		fresh = err == nil
		if fresh && !bytes.HasSuffix(b, []byte("\r\n")) {
			s.breach("bare LF in a body")
		}
		if len(b) > 1000 {
			s.breach("line over 1000 octets")
		}
		if !s.keep(b) {
			return false
		}
	}
}

// keep takes octets of a body in.
func (s *session) keep(b []byte) bool {
	s.size += int64(len(b))
	if !s.script.Discard {
		s.body = append(s.body, b...)
	}
	if limit := s.script.BodyLimit; limit > 0 && s.size > int64(limit) {
		over := s.script.BodyOver
		if over.Do == Answer {
			over.Hangup = true
		}
		if _, alive := s.reply("body_over", over, "552 5.3.4 Message too big"); !alive {
			return false
		}
	}
	return true
}

// bdat takes one chunk (RFC 3030 §2).
func (s *session) bdat(arg string) bool {
	fields := strings.Fields(arg)
	if !s.lists("CHUNKING") || len(fields) == 0 {
		s.breach("BDAT was not listed")
		s.say("500 5.5.2 Command unrecognized")
		return true
	}
	n, err := strconv.ParseInt(fields[0], 10, 63)
	if err != nil || n < 0 {
		s.say("501 5.5.4 Syntax: BDAT size [LAST]")
		return true
	}
	if s.script.ChunkAsCommands {
		s.say("500 5.5.2 Command unrecognized")
		return true
	}
	if s.script.RefusedAsCommands && len(s.rcpts) == 0 {
		s.say("503 5.5.1 No valid recipients")
		return true
	}
	// The chunk follows whatever the answer is.
	if !s.readChunk(n) {
		return false
	}
	if len(s.rcpts) == 0 {
		s.say("503 5.5.1 No valid recipients")
		return true
	}
	s.chunked = true
	if len(fields) > 1 && strings.EqualFold(fields[1], "LAST") {
		return s.finish()
	}
	_, alive := s.reply("bdat", s.script.Chunk, "250 2.0.0 "+fields[0]+" octets received")
	return alive
}

func (s *session) readChunk(n int64) bool {
	for n > 0 {
		if s.br.Buffered() == 0 {
			if s.flush() != nil {
				return false
			}
			if _, err := s.br.Peek(1); err != nil {
				return false
			}
		}
		b, _ := s.br.Peek(int(min(n, int64(s.br.Buffered()))))
		if !s.keep(b) {
			return false
		}
		s.br.Discard(len(b))
		n -= int64(len(b))
	}
	return true
}

// finish answers the end of a message and keeps it when the answer is 2xx.
func (s *session) finish() bool {
	step, r := "end", s.script.End
	if own, ok := s.script.Ends[strings.ToLower(s.from)]; ok {
		step, r = "end "+s.from, own
	}
	// The record comes before the reply: whoever sees the 250 finds the
	// message here.
	scripted := s.h.scripted(step, r)
	scripted.Times = 0
	good := strings.HasPrefix(scripted.wire("250 "), "2") && (scripted.Do == Answer || scripted.Do == Drip)
	if good {
		s.accept()
		s.taken++
	}
	s.reset()
	_, alive := s.reply(step, scripted, "250 2.0.0 Ok: taken")
	if good && s.script.HangUpAfter > 0 {
		s.flush()
		time.AfterFunc(s.script.HangUpAfter, func() { s.raw.Close() })
	}
	return alive
}

func (s *session) accept() {
	h := s.h
	h.octets.Add(s.size)
	if s.script.Discard {
		h.accepted.Add(1)
		h.mu.Lock()
		h.signal()
		h.mu.Unlock()
		return
	}
	m := Message{
		Session: s.rec.Number, At: time.Now(), Helo: s.helo, From: s.from, MailParams: s.params,
		To: s.rcpts, Body: bytes.Clone(s.body), Chunked: s.chunked,
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := s.rec.TLS; t != nil {
		m.TLSVersion, m.Resumed = t.Version, t.DidResume
	}
	h.messages = append(h.messages, m)
	h.accepted.Add(1)
	h.signal()
}

// discardAll reads until the peer is gone.
func (s *session) discardAll() { io.Copy(io.Discard, s.br) }
