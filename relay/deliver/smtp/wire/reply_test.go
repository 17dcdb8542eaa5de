package wire

import (
	"bufio"
	"bytes"
	"strings"
	"testing"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
)

func read(s string) (Reply, error) {
	return readReply(bufio.NewReaderSize(strings.NewReader(s), readBuffer), nil)
}

func TestReadReply(t *testing.T) {
	long := strings.Repeat("x", 2000)
	for _, c := range []struct {
		in   string
		want relay.Reply
	}{
		{"250 ok\r\n", relay.Reply{Code: 250, Text: "ok"}},
		{"250\r\n", relay.Reply{Code: 250}}, // legal: RFC 5321 §4.2
		{"250\n", relay.Reply{Code: 250}},
		{"250 \r\n", relay.Reply{Code: 250}},
		{"550 5.1.1 no such user\r\n", relay.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user"}},
		{"550 5.1.1\r\n", relay.Reply{Code: 550, Enhanced: "5.1.1"}},
		{"550 2.1.1 odd\r\n", relay.Reply{Code: 550, Text: "2.1.1 odd"}}, // the classes disagree
		{"550 5.1.1234 odd\r\n", relay.Reply{Code: 550, Text: "5.1.1234 odd"}},
		{"450-4.2.0 grey\r\n450 4.2.0 listed\r\n", relay.Reply{Code: 450, Enhanced: "4.2.0", Text: "grey listed"}},
		{"250-\r\n250 ok\r\n", relay.Reply{Code: 250, Text: "ok"}},
		{"250-a\r\n251 b\r\n", relay.Reply{Code: 251, Text: "a b"}}, // the last line's code counts
		{"250-a\r\n550 5.1.1 b\r\n", relay.Reply{Code: 550, Enhanced: "5.1.1", Text: "a b"}},
		{"250ok\r\n", relay.Reply{Code: 250, Text: "ok"}},                        // the blank is forgotten
		{"250-a\r\nmore\r\n250 b\r\n", relay.Reply{Code: 250, Text: "a more b"}}, // a line without a code is text
		{"250-a\r\n\r\n250 b\r\n", relay.Reply{Code: 250, Text: "a  b"}},
		{"250 a\x00b\x1b[2J\x7f\r\n", relay.Reply{Code: 250, Text: "a?b?[2J?"}},
		{"554 " + long + "\r\n", relay.Reply{Code: 554, Text: long[:maxReplyText]}},
	} {
		r, err := read(c.in)
		if got := r.Export(); err != nil || got != c.want {
			t.Errorf("%.40q: %+v, %v; want %+v", c.in, got, err, c.want)
		}
	}
}

func TestReadReplyRefuses(t *testing.T) {
	for _, in := range []string{
		"", "25", "2x0 ok\r\n", "150 wait\r\n", "650 ok\r\n", "2500\r\n", "hello\r\n", "\r\n",
		"250-never ends\r\n", "no code\r\n250 b\r\n", "250-a\r\nno code and no end\r\n",
		"250 " + strings.Repeat("x", maxReplyLine) + "\r\n",
		strings.Repeat("250-a\r\n", maxReplyLines) + "250 b\r\n",
		strings.Repeat("250-"+strings.Repeat("x", 4000)+"\r\n", 20) + "250 b\r\n",
	} {
		if r, err := read(in); err == nil {
			t.Errorf("%.40q: accepted as %+v", in, r.Export())
		}
	}
}

func FuzzReadReply(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "250\r\n", "250-a\r\n250 b\r\n", "421 4.3.2 bye\n", "250-a\r\n251 b\r\n", "\xff\xfe250 \r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := readReply(bufio.NewReaderSize(bytes.NewReader(in), readBuffer), nil)
		if err != nil {
			return
		}
		if r.Code < 200 || r.Code > 599 || len(r.Text) > maxReplyBytes {
			t.Fatalf("%d with %d octets", r.Code, len(r.Text))
		}
		out := r.Export()
		if len(out.Text) > maxReplyText || strings.ContainsFunc(out.Text, events.Hidden) {
			t.Fatalf("not fit to be shown: %q", out.Text)
		}
		ParseExtensions(r, nil)
	})
}

func TestExtensions(t *testing.T) {
	r, err := read("250-mx.test greets you\r\n250-starttls\r\n250-Size 1000\r\n250-PipeLining\r\n250-8BITMIME\r\n" +
		"250-LIMITS RCPTMAX=20 MAILMAX=3 X=y\r\n250-REQUIRETLS\r\n250-DSN\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n")
	if err != nil {
		t.Fatal(err)
	}
	want := Extensions{
		StartTLS: policy.Offered, Pipelining: true, Chunking: true, EightBit: true, UTF8: true, DSN: true,
		RequireTLS: true, Size: true, MaxSize: 1000, RcptMax: 20, MailMax: 3,
	}
	want.List = r.Fingerprint()
	if got := ParseExtensions(r, nil); got != want {
		t.Errorf("%+v", got)
	}
	if got := ParseExtensions(r, []string{"CHUNKING", "SIZE"}); got.Chunking || got.Size || !got.Pipelining {
		t.Errorf("keywords not to believe: %+v", got)
	}
	// The first line is a greeting, whatever it says.
	r, _ = read("250-STARTTLS\r\n250 SIZE\r\n")
	if got := ParseExtensions(r, nil); got.StartTLS != policy.NotOffered || !got.Size || got.MaxSize != 0 {
		t.Errorf("%+v", got)
	}
}

func TestMasked(t *testing.T) {
	for word, want := range map[string]bool{
		"XXXXXXXA": true, "XXXXXXXX": true, "xxxxxxxa": true, "XXXX": true, "STARTTLX": true, "XTARTTLS": true, "STARXXXX": true,
		"XCLIENT": false, "XFORWARD": false, "X-EXPS": false, "XXX": false, "SIZE": false, "ETRN": false, "XEXCH50": false,
		"CHUNKING": false, "8BITMIME": false, "SMTPUTF8": false, "AUTH=LOGIN": false, "XVERP": false, "STARTTLS": false,
	} {
		if got := isMasked([]byte(word)); got != want {
			t.Errorf("%s: %v", word, got)
		}
	}
}

// TestFingerprints: two replies to one command have one fingerprint, two to different
// ones have two.
func TestFingerprints(t *testing.T) {
	fingerprint := func(s string) uint64 {
		r, err := read(s)
		if err != nil {
			t.Fatal(s, err)
		}
		return r.Fingerprint()
	}
	for _, same := range [][2]string{
		{"250 2.0.0 Ok: queued as 4YBjXk3dhgz4w3k\r\n", "250 2.0.0 Ok: queued as 4YBjXl1Kz2z4w3m\r\n"},
		{"250 2.0.0 OK  1735592400 d2e1a72fcca58-72aad3f si123456 - gsmtp\r\n", "250 2.0.0 OK  1735592411 d2e1a72fcca58-72aad41 si123999 - gsmtp\r\n"},
		{"250 2.1.5 <bob@example.test>... Recipient ok\r\n", "250 2.1.5 <carol@example.test>... Recipient ok\r\n"},
		{"250 OK id=1tSxyz-000abc-1X\r\n", "250 OK id=1tSxyz-000abd-2Y\r\n"},
	} {
		if fingerprint(same[0]) != fingerprint(same[1]) {
			t.Errorf("%q and %q", same[0], same[1])
		}
	}
	for _, other := range [][2]string{
		{"250 2.0.0 Ok: queued as 4YBjXk3dhgz4w3k\r\n", "250 2.1.5 Ok\r\n"},
		{"250 2.0.0 OK  1735592400 si123456 - gsmtp\r\n", "250 2.1.5 OK si123456 - gsmtp\r\n"},
		{"250 OK id=1tSxyz-000abc-1X\r\n", "250 Accepted\r\n"},
		{"250 Ok\r\n", "251 Ok\r\n"},
	} {
		if fingerprint(other[0]) == fingerprint(other[1]) {
			t.Errorf("%q and %q", other[0], other[1])
		}
	}
}
