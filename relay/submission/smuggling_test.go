package submission

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"regexp"
	"strings"
	"testing"
)

// What some servers take for the end of the content, and what is stored of it.
// In DATA a dot is taken off behind CRLF and, where two stand, behind a bare LF.
var lookAlikes = map[string]struct{ wire, data, chunk string }{
	"LF.LF":           {"\n.\n", "\r\n.\r\n", "\r\n.\r\n"},
	"LF.CRLF":         {"\n.\r\n", "\r\n.\r\n", "\r\n.\r\n"},
	"LF..CRLF":        {"\n..\r\n", "\r\n.\r\n", "\r\n..\r\n"},
	"LF...LF":         {"\n...\n", "\r\n..\r\n", "\r\n...\r\n"},
	"LF.x":            {"\n.x", "\r\n.x", "\r\n.x"},
	"CRLF.LF":         {"\r\n.\n", "\r\n\r\n", "\r\n.\r\n"},
	"CR.CR":           {"\r.\r", " . ", " . "},
	"CRLF.CR":         {"\r\n.\r", "\r\n ", "\r\n. "},
	"CRCRLF":          {"\r\r\n", "\r\n", "\r\n"},
	"CRCRCRLF":        {"\r\r\r\n", "\r\n", "\r\n"},
	"CRCRLF..CRLF":    {"\r\r\n..\r\n", "\r\n.\r\n", "\r\n..\r\n"},
	"CR.CRLF":         {"\r.\r\n", " .\r\n", " .\r\n"},
	"LF alone":        {"\n", "\r\n", "\r\n"},
	"CR alone":        {"\r", " ", " "},
	"CRCR alone":      {"\r\r", "  ", "  "},
	"CRLF.CRCRLF":     {"\r\n.\r\r\n", "\r\n\r\n", "\r\n.\r\n"},
	"CRLF..LF":        {"\r\n..\n", "\r\n.\r\n", "\r\n..\r\n"},
	"CRLF.CR then":    {"\r\n.\r.\r\n", "\r\n .\r\n", "\r\n. .\r\n"},
	"CR NUL LF.CRLF":  {"\r\x00\n.\r\n", " \x00\r\n.\r\n", " \x00\r\n.\r\n"},
	"CRLF.NUL CRLF":   {"\r\n.\x00\r\n", "\r\n\x00\r\n", "\r\n.\x00\r\n"},
	"CRLF NUL ..CRLF": {"\r\n\x00..\r\n", "\r\n\x00..\r\n", "\r\n\x00..\r\n"},
	"NUL":             {"\x00", "\x00", "\x00"},
}

// What is no end here, and may be one where the content goes.
var endsElsewhere = map[string]string{
	"CRLF NUL.":        "\r\n\x00.\r\n",
	"LF NUL NUL.NULLF": "\n\x00\x00.\x00\n",
}

const smuggled = "MAIL FROM:<evil@evil.example>\r\nRCPT TO:<victim@rcpt.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil"

func TestSmugglingInData(t *testing.T) {
	w := start(t, nil)
	c := w.ready()
	for name, like := range lookAlikes {
		t.Run(name, func(t *testing.T) {
			c.t = t
			before := len(w.in.all())
			if got := c.data("Subject: a\r\n\r\nfirst" + like.wire + smuggled); !strings.HasPrefix(got, "250") {
				t.Fatal(got)
			}
			got := w.in.all()[before:]
			if len(got) != 1 || !strings.HasSuffix(got[0].body, "Subject: a\r\n\r\nfirst"+like.data+smuggled+"\r\n") {
				t.Fatalf("accepted %v", got)
			}
			c.cmd("250", "NOOP")
		})
	}
	for name, wire := range endsElsewhere {
		t.Run(name, func(t *testing.T) {
			c.t = t
			before := len(w.in.all())
			if got := c.data("Subject: a\r\n\r\nfirst" + wire + smuggled); !strings.HasPrefix(got, "550 5.6.0 A line of NULs") {
				t.Fatal(got)
			}
			c.cmd("250", "NOOP")
			if got := w.in.all()[before:]; len(got) != 0 {
				t.Fatalf("accepted %v", got)
			}
		})
	}
}

// Whoever wants strict content gets it.
func TestBareNewlinesRefused(t *testing.T) {
	w := start(t, func(o *Options) { o.RefuseBareNewlines = true })
	for name, like := range lookAlikes {
		t.Run(name, func(t *testing.T) {
			c := w.ready()
			c.t = t
			content := "Subject: a\r\n\r\nfirst" + like.wire + "second"
			got := c.data(content)
			var mended newlines
			mended.next([]byte(content), func([]byte) {})
			switch {
			case !mended.bareCR && !mended.bareLF:
				if !strings.HasPrefix(got, "250") {
					t.Fatal(got)
				}
			case !strings.HasPrefix(got, "550 5.6.0 Bare"):
				t.Fatal(got)
			}
			if strings.Contains(got, bareCRWords) {
				c.closed()
				return
			}
			c.envelope()
			c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(content), content))
			c.expect(got[:9])
		})
	}
}

// CR CR LF "." CR LF ends the content here and may not where it came from. The
// message is refused and what follows is not taken for commands, whatever else
// is wrong with it, and however many CRs there are.
func TestDoubtfulEndOfData(t *testing.T) {
	filler := strings.Repeat("0123456789abcd\r\n", 4<<10) // so that the fault is found some reads before
	for name, c := range map[string]struct {
		limit          int64 // of the message
		content, reply string
	}{
		"nothing":     {1 << 20, "Subject: a\r\n\r\nfirst", "550 5.6.0 " + doubtfulWords},
		"much":        {1 << 20, "Subject: a\r\n\r\nfirst" + filler, "550 5.6.0 " + doubtfulWords},
		"CR":          {1 << 20, "Subject: a\r\n\r\nfirst\r", "550 5.6.0 " + doubtfulWords},
		"LF":          {1 << 20, "Subject: a\r\n\r\nfirst\n" + filler, "550 5.6.0"},
		"NUL":         {1 << 20, "Subject: a\r\n\r\nfirst\x00" + filler, "550 5.6.0"},
		"hops":        {1 << 20, strings.Repeat("Received: x\r\n", 2*maxReceived) + "\r\n" + filler, "554 5.4.6"},
		"X-SMTPAPI":   {1 << 20, "X-SMTPAPI: {\r\n\r\n" + filler, "550 5.6.0"},
		"size":        {32 << 10, "Subject: a\r\n\r\n" + filler, "552 5.3.4 " + tooBig},
		"header size": {8 << 20, "Subject: " + strings.Repeat("0123456789abcd\r\n ", 2*maxHeader/16) + filler, "552 5.3.4 " + headerTooBig},
		"no header":   {1 << 20, "\n", "550 5.6.0"},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, func(o *Options) { o.MaxMessageBytes = c.limit })
			x := w.ready()
			x.t = t
			x.envelope()
			x.cmd("354", "DATA")
			x.send(c.content + "\r\r\n.\r\n" + smuggled + "\r\n.\r\n")
			x.expect(c.reply)
			x.closed()
			if got := w.in.all(); len(got) != 0 {
				t.Errorf("accepted %d messages", len(got))
			}
		})
	}
}

func TestSmugglingInBDAT(t *testing.T) {
	w := start(t, nil)
	c := w.ready()
	chunks := func(content string, at int) string {
		c.envelope()
		c.send(fmt.Sprintf("BDAT %d\r\n%sBDAT %d LAST\r\n%s", at, content[:at], len(content)-at, content[at:]))
		c.expect("250 2.0.0 Continue")
		return c.reply()
	}
	likes := maps.Clone(lookAlikes)
	likes["CRCRLF.CRLF"] = struct{ wire, data, chunk string }{"\r\r\n.\r\n", "", "\r\n.\r\n"}
	for name, like := range likes {
		t.Run(name, func(t *testing.T) {
			c.t = t
			content := "Subject: a\r\n\r\nfirst" + like.wire + "second\r\n"
			// Also when a chunk ends between any two octets.
			for at := range len(content) {
				before := len(w.in.all())
				if got := chunks(content, at); !strings.HasPrefix(got, "250 2.0.0 Ok") {
					t.Fatalf("split at %d: %s", at, got)
				}
				got := w.in.all()[before:]
				if len(got) != 1 || !strings.HasSuffix(got[0].body, "Subject: a\r\n\r\nfirst"+like.chunk+"second\r\n") {
					t.Fatalf("split at %d: %v", at, got)
				}
			}
		})
	}
	for name, wire := range endsElsewhere {
		t.Run(name, func(t *testing.T) {
			c.t = t
			for _, content := range []string{"Subject: a\r\n\r\nfirst" + wire + "second\r\n", "Subject: a\r\n\r\nfirst" + strings.TrimRight(wire, "\r\n")} {
				for at := range len(content) {
					if got := chunks(content, at); !strings.HasPrefix(got, "550 5.6.0 A line of NULs") {
						t.Fatalf("%q split at %d: %s", content, at, got)
					}
				}
			}
		})
	}
	c.t = t
	w.in.mu.Lock()
	w.in.got = nil
	w.in.mu.Unlock()
	// An honest end of data is content in a chunk, and stays it.
	content := "Subject: a\r\n\r\nx\r\n.\r\n" + smuggled + "\r\n.\r\n"
	c.envelope()
	c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(content), content))
	c.expect("250 2.0.0 Ok")
	got := w.in.all()
	if len(got) != 1 || !strings.HasSuffix(got[0].body, content[len("Subject: a\r\n"):]) {
		t.Fatalf("accepted %v", got)
	}
}

func TestDotsAreUnstuffed(t *testing.T) {
	w := start(t, nil)
	c := w.ready()
	if got := c.data("Subject: a\r\n\r\n..one\r\n...two\r\n..\r\n.x\r\na.\r\n.."); !strings.HasPrefix(got, "250") {
		t.Fatal(got)
	}
	body := w.in.all()[0].body
	if want := "\r\n\r\n.one\r\n..two\r\n.\r\nx\r\na.\r\n.\r\n"; !strings.HasSuffix(body, want) {
		t.Errorf("body %q", body)
	}
}

// refUndot is the octet-at-a-time state machine that undot must agree with.
func refUndot(w []byte) (content []byte, used int, end, doubtful bool) {
	behind := func(i int, end string) bool { return bytes.HasSuffix(w[:i], []byte(end)) }
	dropped := -1 // where the last dot was taken off: what stands before it ends no line
	for i := 0; i < len(w); i++ {
		crlf := i == 0 || behind(i, "\r\n") && dropped != i-2
		if w[i] == '.' && crlf {
			if bytes.HasPrefix(w[i:], []byte(".\r\n")) {
				return content, i + 3, true, behind(i, "\r\r\n") && dropped != i-3
			}
			if len(w)-i < 3 && bytes.HasPrefix([]byte(".\r\n"), w[i:]) {
				return content, i, false, false
			}
			dropped = i
			continue
		}
		if w[i] == '.' && behind(i, "\n.") && dropped != i-1 {
			dropped = i
			continue
		}
		content = append(content, w[i])
	}
	return content, len(w), false, false
}

func FuzzUndot(f *testing.F) {
	for _, e := range lookAlikes {
		f.Add([]byte("a: b\r\n\r\nx"+e.wire+"y\r\n.\r\nNOOP\r\n"), uint8(3))
	}
	f.Add([]byte("\r\n.\r\n"), uint8(1))
	f.Add([]byte("..\r\n.\r\n"), uint8(2))
	f.Add([]byte("x\r\r\n.\r\n"), uint8(0))
	f.Add([]byte("\r\n.\r\r\n.\r\n"), uint8(0))
	f.Fuzz(func(t *testing.T, wire []byte, step uint8) {
		want, wantUsed, wantEnd, wantDoubtful := refUndot(wire)
		var got []byte
		var u undot
		used, have, end := 0, 0, false
		for !end && have < len(wire) {
			have = min(len(wire), have+1+int(step))
			var n int
			n, end = u.next(wire[used:have], func(b []byte) { got = append(got, b...) })
			used += n
		}
		if !bytes.Equal(got, want) || used != wantUsed || end != wantEnd || u.doubtful != wantDoubtful {
			t.Fatalf("%q by %d: %q %d %v %v, want %q %d %v %v", wire, step, got, used, end, u.doubtful, want, wantUsed, wantEnd, wantDoubtful)
		}
	})
}

var refEndLike = regexp.MustCompile(`(?:^|\n)\x00+\.\x00*(?:\r\n|$)`)

// FuzzScan: the line of NULs and a dot is found however content is cut.
func FuzzScan(f *testing.F) {
	for _, e := range endsElsewhere {
		f.Add([]byte("a: b\r\n\r\nx"+e+"y\r\n"), uint8(3))
	}
	f.Add([]byte("gr\xc3\xbc\xc3\x9fe\r\n"), uint8(7))
	f.Add([]byte("\x00.\x00"), uint8(0))
	f.Add([]byte("\x00..\r\n\x00\r\n.\r\n"), uint8(40))
	f.Fuzz(func(t *testing.T, content []byte, step uint8) {
		content = refMend(content)
		want := bytes.ContainsFunc(content, func(r rune) bool { return r >= 0x80 })
		var got scan
		for rest := content; len(rest) > 0; {
			n := min(len(rest), 1+int(step))
			if n < len(rest) && rest[n-1] == '\r' {
				n++ // newlines keeps them together
			}
			got.next(rest[:n])
			rest = rest[n:]
		}
		got.end()
		if got.eightBit != want || got.endLike != refEndLike.Match(content) {
			t.Fatalf("%q by %d: %+v", content, step, got)
		}
	})
}

// receivers are what servers make of an octet or two before they look for the
// line that ends DATA, and what ends a line to them.
var receivers = map[string]func(wire []byte) (lines [][]byte){
	"strict": func(w []byte) [][]byte { return bytes.Split(w, []byte("\r\n")) },
	"LF":     func(w []byte) [][]byte { return bytes.Split(bytes.ReplaceAll(w, []byte("\r"), nil), []byte("\n")) },
	"CR":     func(w []byte) [][]byte { return bytes.Split(bytes.ReplaceAll(w, []byte("\n"), nil), []byte("\r")) },
	"any": func(w []byte) [][]byte {
		return bytes.FieldsFunc(w, func(r rune) bool { return r == '\r' || r == '\n' })
	},
	"no NUL": func(w []byte) [][]byte {
		return bytes.Split(bytes.ReplaceAll(bytes.ReplaceAll(w, []byte{0}, nil), []byte("\r"), nil), []byte("\n"))
	},
}

// FuzzSmuggling: what is taken by DATA or in chunks and sent on by DATA has
// one end, and whatever a receiver takes for a line end, it finds the same.
func FuzzSmuggling(f *testing.F) {
	for _, e := range lookAlikes {
		f.Add([]byte("x" + e.wire + "y\r\n.\r\n"))
	}
	for _, e := range endsElsewhere {
		f.Add([]byte("x" + e + "y\r\n.\r\n"))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		taken := func(content []byte) {
			content, _ = mend(content, max(1, len(content)))
			var s scan
			s.next(content)
			if s.end(); s.endLike {
				return
			}
			if !bytes.HasSuffix(content, lineEnd) {
				content = append(content, lineEnd...)
			}
			sent := bytes.ReplaceAll(append([]byte("\n"), content...), []byte("\n."), []byte("\n.."))[1:] // as relay/deliver does
			for name, lines := range receivers {
				for _, line := range lines(sent) {
					if string(line) == "." {
						t.Fatalf("%q is sent as %q, and ends early for %s", wire, sent, name)
					}
				}
			}
		}
		taken(wire)
		var content []byte
		var u undot
		if _, end := u.next(wire, func(b []byte) { content = append(content, b...) }); end && !u.doubtful {
			taken(content)
		}
	})
}

// FuzzConversation throws bytes at a server. Whatever they are, it must not
// accept anything without AUTH, not hang and leave nothing behind.
func FuzzConversation(f *testing.F) {
	f.Add("EHLO a\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n")
	f.Add("EHLO a\r\nBDAT 5\r\nhelloBDAT 99999999999\r\nBDAT 3 LAST\r\nabcNOOP\r\n")
	f.Add("EHLO a\r\nAUTH PLAIN\r\n*\r\nAUTH LOGIN =\r\n=\r\n=\r\nAUTH PLAIN AAAA\r\n")
	f.Add("STARTTLS x\r\nSTARTTLS\r\nEHLO a\r\n")
	f.Add("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
	f.Add("HELO \xff\r\nVRFY a\r\nHELP\r\nGET / HTTP/1.1\r\n\r\n\n\n\r\r\n\x00\r\n")
	w := start(f, nil)
	f.Fuzz(func(t *testing.T, input string) {
		c := w.on(t).raw(w.srv.Addrs()[0])
		defer c.Close()
		go func() {
			_, _ = io.WriteString(c.Conn, input)
			if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
				_ = cw.CloseWrite()
			}
		}()
		all, err := io.ReadAll(c.r)
		if isTimeout(err) {
			t.Fatalf("hangs after %q: %q", input, all)
		}
		if bytes.Contains(all, []byte("queued as")) || len(w.in.all()) > 0 {
			t.Fatalf("accepted without AUTH: %q", input)
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(string(all), "\r\n"), "\r\n") {
			if len(line) > 0 && (len(line) < 4 || line[0] < '2' || line[0] > '5') {
				t.Fatalf("%q is no reply", line)
			}
		}
	})
}
