package submission

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
)

// replyLine is a line of a reply (RFC 5321 §4.2): a code of the classes there are, a
// hyphen or a blank, and text without controls.
var replyLine = regexp.MustCompile(`^[2345][0-5][0-9][ -][ -~]*$`)

// FuzzSessionAfterLogin: whatever a client that has logged in says, the relay neither
// panics nor hangs, and answers in replies that are well formed.
func FuzzSessionAfterLogin(f *testing.F) {
	const envelope = "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
	for _, s := range []string{
		envelope + "DATA\r\n" + simple + "\r\n.\r\nNOOP\r\n",
		envelope + fmt.Sprintf("BDAT %d LAST\r\n%s", len(simple), simple) + "RSET\r\n",
		envelope + "BDAT 3\r\nabcRSET\r\n" + envelope + "BDAT 0 LAST\r\n",
		envelope + "BDAT 3\r\nabcBDAT 2\r\ndeEHLO again\r\n",
		envelope + "BDAT x\r\nabc", envelope + "BDAT 99999999999\r\nabc", "BDAT 3 LAST\r\nabcNOOP\r\n",
		envelope + "BDAT 3\r\nabcDATA\r\nMAIL FROM:<x@y.example>\r\nRCPT TO:<x@y.example>\r\nBDAT 1 LAST\r\nx",
		"MAIL FROM:<> SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=a+2Bb SIZE=10 AUTH=<>\r\nRCPT TO:<\xc3\xbc@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@b\r\nDATA\r\n\r\n.\r\n",
		envelope + "DATA\r\nX-SMTPAPI: {\"category\":[\"a\"],\"unique_args\":{\"a\":1}}\r\n\r\n..\r\n.\r\n",
		envelope + "DATA\r\na\nb\rc\r\n.\n.\r\r\n.\r\nNOOP\r\n",
		"AUTH PLAIN AAAA\r\nAUTH LOGIN\r\n*\r\nSTARTTLS\r\nSTARTTLS now\r\nVRFY x\r\nHELP\r\nEXPN x\r\nTURN\r\n",
		"EHLO\r\nHELO x\r\nEHLO [IPv6:::1]\r\nLHLO x\r\n" + envelope + "QUIT\r\nNOOP\r\n",
		"RCPT TO:<a@b.example>\r\nDATA\r\nMAIL FROM:a@b.example\r\nMAIL FROM:<@x.example:a@b.example>\r\nRSET\r\n",
		"M\x01IL FROM:<a@b.example>\r\n" + strings.Repeat("y", 2000) + "\r\n\r\n\r\n\x00\xff\r\nMAIL\r\nRCPT\r\n" + strings.Repeat("x", 13000) + "\r\n",
		"NOOP\nNOOP\r\rNOOP\r\n", "MAIL FROM:<\"a\\\"b\"@c.example>\r\nRCPT TO:<postmaster>\r\nDATA\r\n.\r\n",
	} {
		f.Add([]byte(s), uint8(200))
		f.Add([]byte(s), uint8(7))
	}
	w := start(f, func(o *Options) { o.IdleTimeout, o.MaxMessageBytes = 10*time.Second, 1<<16 })
	w.in.quiet = true
	f.Fuzz(func(t *testing.T, said []byte, step uint8) {
		w := w.on(t)
		c := w.ready()
		defer c.Close()
		answers := make(chan []byte, 1)
		go func() {
			b, _ := io.ReadAll(c.r) // until the relay hangs up
			answers <- b
		}()
		for rest := said; len(rest) > 0; {
			n := min(len(rest), int(step)+1)
			if _, err := c.Write(rest[:n]); err != nil {
				break // it has hung up
			}
			rest = rest[n:]
		}
		c.Conn.(*net.TCPConn).CloseWrite()
		select {
		case got := <-answers:
			checkReplies(t, said, got)
		case <-time.After(15 * time.Second):
			t.Fatalf("%q: no end", said)
		}
	})
	f.Cleanup(func() {
		if n := w.srv.memory.InUse(); n != 0 {
			f.Errorf("%d octets are still counted", n)
		}
	})
}

// checkReplies holds what was answered to the form of replies. The last one may have
// been cut off.
func checkReplies(t *testing.T, said, got []byte) {
	t.Helper()
	if bytes.Contains(got, []byte("Internal server error")) {
		t.Fatalf("%q: a panic\n%s", said, got)
	}
	lines := bytes.SplitAfter(got, []byte("\r\n"))
	for i, line := range lines {
		if len(line) == 0 || i == len(lines)-1 {
			continue
		}
		text := bytes.TrimSuffix(line, []byte("\r\n"))
		if !replyLine.Match(text) || len(text) > 510 {
			t.Fatalf("%q was answered %q", said, line)
		}
		if more := i > 0 && lines[i-1][3] == '-'; more && !bytes.Equal(lines[i-1][:3], text[:3]) {
			t.Fatalf("%q was answered by two codes in one reply: %q %q", said, lines[i-1], line)
		}
	}
}
