package submission

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

// What some servers take for the end of the content (dependencies §1.3).
var lookAlikes = map[string]string{
	"LF.LF":        "\n.\n",
	"LF.CRLF":      "\n.\r\n",
	"CRLF.LF":      "\r\n.\n",
	"CR.CR":        "\r.\r",
	"CRLF.CR":      "\r\n.\r",
	"CRCRLF.CRLF":  "\r\r\n.\r\n",
	"CRLF NUL.":    "\r\n\x00.\r\n",
	"CR.CRLF":      "\r.\r\n",
	"LF alone":     "\n",
	"CR alone":     "\r",
	"CRLF.CRCRLF":  "\r\n.\r\r\n",
	"CRLF..LF":     "\r\n..\n",
	"CRLF.CR then": "\r\n.\r.\r\n",
}

const smuggled = "MAIL FROM:<evil@evil.example>\r\nRCPT TO:<victim@rcpt.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil"

func TestSmugglingInData(t *testing.T) {
	w := start(t, nil)
	for name, ending := range lookAlikes {
		t.Run(name, func(t *testing.T) {
			c := w.ready()
			c.t = t
			got := c.data("Subject: a\r\n\r\nfirst" + ending + smuggled)
			if !strings.HasPrefix(got, "550 5.6.0") {
				t.Fatal(got)
			}
			if strings.Contains(got, bareCRWords) {
				c.closed()
				return
			}
			c.cmd("250", "NOOP")
		})
	}
	if got := w.in.all(); len(got) != 0 {
		t.Fatalf("accepted %d messages", len(got))
	}
}

// CR CR LF "." CR LF ends the content here and may not where it came from. What
// follows is not taken for commands, whatever else the message is refused for.
func TestSmugglingBehindAnotherFault(t *testing.T) {
	filler := strings.Repeat("0123456789abcd\r\n", 4<<10) // so that the fault is found some reads before
	for name, c := range map[string]struct {
		limit          int64 // of the message
		content, reply string
	}{
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
	for name, ending := range lookAlikes {
		t.Run(name, func(t *testing.T) {
			c := w.ready()
			c.t = t
			content := "Subject: a\r\n\r\nfirst" + ending + "second\r\n"
			// Also when a chunk ends between any two octets.
			for at := range len(content) {
				c.envelope()
				c.send(fmt.Sprintf("BDAT %d\r\n%sBDAT %d LAST\r\n%s", at, content[:at], len(content)-at, content[at:]))
				c.expect("250 2.0.0 Continue")
				if got := c.reply(); !strings.HasPrefix(got, "550 5.6.0") {
					t.Fatalf("split at %d: %s", at, got)
				}
			}
		})
	}
	// An honest end of data is content in a chunk, and stays it.
	c := w.ready()
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
func refUndot(w []byte) (content []byte, used int, end bool) {
	lineStart := true
	for i := 0; i < len(w); {
		if lineStart && w[i] == '.' {
			if bytes.HasPrefix(w[i:], []byte(".\r\n")) {
				return content, i + 3, true
			}
			if len(w)-i < 3 && bytes.HasPrefix([]byte(".\r\n"), w[i:]) {
				return content, i, false
			}
			i++ // stuffed
			lineStart = false
			continue
		}
		content = append(content, w[i])
		// CRLF as it stood on the wire: a dropped dot separates.
		lineStart = w[i] == '\n' && i > 0 && w[i-1] == '\r'
		i++
	}
	return content, len(w), false
}

func FuzzUndot(f *testing.F) {
	for _, e := range lookAlikes {
		f.Add([]byte("a: b\r\n\r\nx"+e+"y\r\n.\r\nNOOP\r\n"), uint8(3))
	}
	f.Add([]byte("\r\n.\r\n"), uint8(1))
	f.Add([]byte("..\r\n.\r\n"), uint8(2))
	f.Fuzz(func(t *testing.T, wire []byte, step uint8) {
		want, wantUsed, wantEnd := refUndot(wire)
		var got []byte
		var u undot
		used, have, end := 0, 0, false
		for !end && have < len(wire) {
			have = min(len(wire), have+1+int(step))
			var n int
			n, end = u.next(wire[used:have], func(b []byte) { got = append(got, b...) })
			used += n
		}
		if !bytes.Equal(got, want) || used != wantUsed || end != wantEnd {
			t.Fatalf("%q by %d: %q %d %v, want %q %d %v", wire, step, got, used, end, want, wantUsed, wantEnd)
		}
	})
}

// refScan is what scan must agree with, octet by octet.
func refScan(b []byte) (s scan) {
	for i, c := range b {
		switch {
		case c == 0:
			s.nul = true
		case c == '\r' && (i+1 == len(b) || b[i+1] != '\n'):
			s.bareCR = true
		case c == '\n' && (i == 0 || b[i-1] != '\r'):
			s.bareLF = true
		case c >= 0x80:
			s.eightBit = true
		}
	}
	return s
}

func FuzzScan(f *testing.F) {
	for _, e := range lookAlikes {
		f.Add([]byte("a: b\r\n\r\nx"+e+"y\r\n"), uint8(3))
	}
	f.Add([]byte("gr\xc3\xbc\xc3\x9fe\r\n"), uint8(7))
	f.Fuzz(func(t *testing.T, content []byte, step uint8) {
		want := refScan(content)
		var got scan
		for rest := content; len(rest) > 0; {
			n := min(len(rest), 1+int(step))
			got.next(rest[:n])
			rest = rest[n:]
		}
		got.end()
		got.cr = false
		if got != want {
			t.Fatalf("%q by %d: %+v, want %+v", content, step, got, want)
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
