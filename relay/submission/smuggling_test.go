package submission

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"

	"tlsrelay/relay/relaytest"
)

const smuggled = "MAIL FROM:<evil@evil.example>\r\nRCPT TO:<victim@rcpt.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil"

func TestSmugglingInData(t *testing.T) {
	w := start(t, nil)
	c := w.ready()
	for name, like := range relaytest.LookAlikes {
		t.Run(name, func(t *testing.T) {
			c.t = t
			before := len(w.in.all())
			if got := c.data("Subject: a\r\n\r\nfirst" + like.Wire + smuggled); !strings.HasPrefix(got, "250") {
				t.Fatal(got)
			}
			got := w.in.all()[before:]
			if len(got) != 1 || !strings.HasSuffix(got[0].body, "Subject: a\r\n\r\nfirst"+like.Data+smuggled+"\r\n") {
				t.Fatalf("accepted %v", got)
			}
			c.cmd("250", "NOOP")
		})
	}
	for name, wire := range relaytest.EndsElsewhere {
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
	for name, like := range relaytest.LookAlikes {
		t.Run(name, func(t *testing.T) {
			c := w.ready()
			c.t = t
			content := "Subject: a\r\n\r\nfirst" + like.Wire + "second"
			got := c.data(content)
			switch {
			case like.Wire == like.Chunk: // nothing to mend
				if !strings.HasPrefix(got, "250") {
					t.Fatal(got)
				}
			case !strings.HasPrefix(got, "550 5.6.0 Bare"):
				t.Fatal(got)
			}
			if strings.Contains(got, "Bare CR") {
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
	const doubtful = "550 5.6.0 CR CR LF before the final dot: not every server takes that for the end of a message"
	filler := strings.Repeat("0123456789abcd\r\n", 4<<10) // so that the fault is found some reads before
	for name, c := range map[string]struct {
		limit          int64 // of the message
		content, reply string
	}{
		"nothing":     {1 << 20, "Subject: a\r\n\r\nfirst", doubtful},
		"much":        {1 << 20, "Subject: a\r\n\r\nfirst" + filler, doubtful},
		"CR":          {1 << 20, "Subject: a\r\n\r\nfirst\r", doubtful},
		"LF":          {1 << 20, "Subject: a\r\n\r\nfirst\n" + filler, "550 5.6.0"},
		"NUL":         {1 << 20, "Subject: a\r\n\r\nfirst\x00" + filler, "550 5.6.0"},
		"hops":        {1 << 20, strings.Repeat("Received: x\r\n", 100) + "\r\n" + filler, "554 5.4.6"},
		"X-SMTPAPI":   {1 << 20, "X-SMTPAPI: {\r\n\r\n" + filler, "550 5.6.0"},
		"size":        {32 << 10, "Subject: a\r\n\r\n" + filler, "552 5.3.4 Message is too big"},
		"header size": {8 << 20, "Subject: " + strings.Repeat("0123456789abcd\r\n ", 2<<20/16) + filler, "552 5.3.4 The header section is too big"},
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
	likes := maps.Clone(relaytest.LookAlikes)
	likes["CRCRLF.CRLF"] = struct{ Wire, Data, Chunk string }{"\r\r\n.\r\n", "", "\r\n.\r\n"}
	for name, like := range likes {
		t.Run(name, func(t *testing.T) {
			c.t = t
			content := "Subject: a\r\n\r\nfirst" + like.Wire + "second\r\n"
			// Also when a chunk ends between any two octets.
			for at := range len(content) {
				before := len(w.in.all())
				if got := chunks(content, at); !strings.HasPrefix(got, "250 2.0.0 Ok") {
					t.Fatalf("split at %d: %s", at, got)
				}
				got := w.in.all()[before:]
				if len(got) != 1 || !strings.HasSuffix(got[0].body, "Subject: a\r\n\r\nfirst"+like.Chunk+"second\r\n") {
					t.Fatalf("split at %d: %v", at, got)
				}
			}
		})
	}
	for name, wire := range relaytest.EndsElsewhere {
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
