package relaytest

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// session is one connection.
type session struct {
	h      *Host
	script *Script
	act    act
	raw    net.Conn // TCP
	conn   net.Conn // raw, or TLS over it
	tee    *tee
	br     *bufio.Reader
	out    []byte
	rec    *Session
	others int // connections open when this one came, itself included

	inTLS     bool
	helo      string
	extended  bool     // EHLO, not HELO
	listed    []string // keywords of the last EHLO
	mail      bool     // MAIL was accepted
	from      string
	params    []string
	rcpts     []Recipient
	body      []byte
	size      int64 // of body, also when it is not kept
	chunked   bool
	pipelined bool // the client may
	taken     int  // messages
	refused   int  // RCPTs
}

const readBuffer = 32 << 10 // holds any ClientHello record and any command line

func newSession(h *Host, c net.Conn, a act, number, others int) *session {
	rec := &Session{Number: number}
	if t, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		rec.Remote = t.AddrPort()
	}
	s := &session{h: h, script: a.script, act: a, raw: c, conn: c, rec: rec, others: others}
	s.tee = &tee{s: s, on: !a.script.Discard}
	s.br = bufio.NewReaderSize(s.tee, readBuffer)
	return s
}

// tee keeps what is read in clear.
type tee struct {
	s  *session
	on bool
}

func (t *tee) Read(b []byte) (int, error) {
	n, err := t.s.raw.Read(b)
	if t.on && n > 0 {
		t.s.h.mu.Lock()
		t.s.rec.Clear += string(b[:n])
		t.s.h.mu.Unlock()
	}
	return n, err
}

func (s *session) run() {
	greeting := s.script.Greeting
	normal := "220 " + s.h.name + " ESMTP relaytest"
	if s.script.MaxConnections > 0 && s.others > s.script.MaxConnections {
		greeting, normal = s.script.TurnAway, "421 4.7.0 Too many connections"
		greeting.Hangup = true
	}
	code, alive := s.reply("greeting", greeting, normal)
	if !alive {
		return
	}
	// RFC 5321 §3.1: after a 554 greeting the host waits for QUIT.
	refusing := code/100 != 2
	for {
		line, err := s.readLine()
		if err != nil {
			return
		}
		verb, arg, _ := strings.Cut(line, " ")
		verb = strings.ToUpper(verb)
		if refusing && verb != "QUIT" {
			s.say("503 5.5.1 " + s.h.name + " takes no mail now")
			continue
		}
		if !s.command(verb, arg) {
			s.flush()
			return
		}
	}
}

// readLine reads a command line, sending what is owed first when there is
// none yet.
func (s *session) readLine() (string, error) {
	if s.br.Buffered() == 0 {
		if err := s.flush(); err != nil {
			return "", err
		}
	} else if !s.pipelined {
		s.breach("pipelining")
	}
	b, err := s.br.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	if len(b) < 2 || b[len(b)-2] != '\r' {
		s.breach("bare LF in a command")
	}
	line := strings.TrimRight(string(b), "\r\n")
	if !s.script.Discard {
		s.h.mu.Lock()
		s.rec.Commands = append(s.rec.Commands, Command{line, s.inTLS})
		s.h.signal()
		s.h.mu.Unlock()
	}
	return line, nil
}

// command obeys one command. false: the conversation is over.
func (s *session) command(verb, arg string) bool {
	switch verb {
	case "EHLO":
		return s.ehlo(arg)
	case "HELO":
		s.helo, s.extended, s.listed, s.pipelined = arg, false, nil, false
		_, alive := s.reply("helo", s.script.HELO, "250 "+s.h.name)
		return alive
	case "STARTTLS":
		return s.startTLS()
	case "MAIL":
		return s.mailFrom(arg)
	case "RCPT":
		return s.rcptTo(arg)
	case "DATA":
		return s.data()
	case "BDAT":
		return s.bdat(arg)
	case "RSET":
		s.reset()
		_, alive := s.reply("rset", s.script.Rset, "250 2.0.0 Ok")
		return alive
	case "NOOP":
		s.say("250 2.0.0 Ok")
		return true
	case "QUIT":
		s.reply("quit", s.script.Quit, "221 2.0.0 Bye")
		return false
	}
	s.say("500 5.5.2 Command unrecognized")
	return true
}

func (s *session) ehlo(arg string) bool {
	step, scripted := "ehlo", s.script.EHLO
	keywords := s.script.Keywords
	if keywords == nil {
		keywords = DefaultKeywords
	}
	if s.inTLS {
		step, scripted = "ehlo_tls", s.script.EHLOInTLS
		if s.script.KeywordsInTLS != nil {
			keywords = s.script.KeywordsInTLS
		}
	} else if !s.script.NoTLS {
		as := s.script.StartTLSAs
		if as == "" {
			as = "STARTTLS"
		}
		keywords = append(keywords[:len(keywords):len(keywords)], as)
	}
	var b strings.Builder
	b.WriteString("250")
	text := s.h.name + " greets " + arg
	for _, k := range keywords {
		b.WriteString("-" + text + "\r\n250")
		text = k
	}
	b.WriteString(" " + text)
	s.reset()
	code, alive := s.reply(step, scripted, b.String())
	if code == 250 {
		s.helo, s.extended, s.listed = arg, true, keywords
		s.pipelined = s.lists("PIPELINING")
	}
	return alive
}

// lists reports whether the last EHLO listed the keyword.
func (s *session) lists(keyword string) bool {
	for _, k := range s.listed {
		name, _, _ := strings.Cut(k, " ")
		if strings.EqualFold(name, keyword) {
			return true
		}
	}
	return false
}

func (s *session) reset() {
	s.mail, s.from, s.params, s.rcpts, s.body, s.size = false, "", nil, nil, s.body[:0], 0
	s.chunked = false
}

func (s *session) breach(what string) {
	if s.script.Discard {
		return
	}
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.rec.Breaches = append(s.rec.Breaches, what)
}

// say queues one reply.
func (s *session) say(reply string) { s.out = append(append(s.out, reply...), "\r\n"...) }

func (s *session) flush() error {
	if len(s.out) == 0 {
		return nil
	}
	_, err := s.conn.Write(s.out)
	s.out = s.out[:0]
	return err
}

// reply plays r at the named step, or gives the normal reply. It returns the
// code sent and whether the conversation goes on.
func (s *session) reply(step string, r Reply, normal string) (code int, alive bool) {
	r = s.h.scripted(step, r)
	text := r.wire(normal)
	code, _ = strconv.Atoi(text[:min(3, len(text))])
	if r.Delay > 0 {
		s.flush()
		if !s.sleep(r.Delay) {
			return code, false
		}
	}
	if r.Do != Answer {
		s.flush()
		s.odd(r, text)
		return code, r.Do == Drip && !r.Hangup
	}
	s.out = append(s.out, text...)
	if r.Hangup || code == 421 {
		s.hangUp()
		return code, false
	}
	return code, s.surplus(step)
}

// surplus says what nobody asked for. false: the conversation is over.
func (s *session) surplus(step string) bool {
	step, _, _ = strings.Cut(step, " ")
	extra, ok := s.script.Surplus[step]
	if !ok {
		return true
	}
	if extra.Delay > 0 {
		s.flush()
		if !s.sleep(extra.Delay) {
			return false
		}
	}
	s.out = append(s.out, extra.Raw...)
	return extra.Delay == 0 || s.flush() == nil
}

// wire gives the octets of the reply.
func (r Reply) wire(normal string) string {
	switch {
	case r.Raw != "":
		return r.Raw
	case r.Code == 0 && r.Text == "":
		return normal + "\r\n"
	}
	code := strconv.Itoa(r.Code)
	if r.Code == 0 {
		code = normal[:3]
	}
	var b strings.Builder
	for rest, more := r.Text, true; more; {
		var line string
		line, rest, more = strings.Cut(rest, "\n")
		b.WriteString(code)
		switch {
		case more:
			b.WriteString("-")
		case line != "":
			b.WriteString(" ")
		}
		b.WriteString(line + "\r\n")
	}
	return b.String()
}

// odd does what is not a plain answer.
func (s *session) odd(r Reply, text string) {
	switch r.Do {
	case Close:
		s.hangUp()
	case Reset:
		s.sendReset()
	case Silence:
		io.Copy(io.Discard, s.br)
	case Stall:
		<-s.h.done
	case Endless:
		line := []byte(text[:min(3, len(text))] + "-" + strings.Repeat("and so on ", 20) + "\r\n")
		for {
			if _, err := s.conn.Write(line); err != nil {
				return
			}
		}
	case Drip:
		pace := r.Pace
		if pace == 0 {
			pace = time.Second
		}
		for i := range len(text) {
			if _, err := s.conn.Write([]byte{text[i]}); err != nil || !s.sleep(pace) {
				return
			}
		}
		if r.Hangup {
			s.hangUp()
		}
	}
}

// hangUp closes in such a way that the last reply is not lost to a RST that
// unread input would cause.
func (s *session) hangUp() {
	s.flush()
	if t, ok := s.conn.(interface{ CloseWrite() error }); ok {
		t.CloseWrite()
	}
	if t, ok := s.raw.(*net.TCPConn); ok {
		t.CloseWrite()
	}
	s.raw.SetReadDeadline(time.Now().Add(5 * time.Second))
	io.Copy(io.Discard, s.raw)
	s.raw.Close()
}

func (s *session) sendReset() {
	if t, ok := s.raw.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	s.raw.Close()
}

// sleep waits; false: the host was closed.
func (s *session) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.h.done:
		return false
	}
}
