package submission

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestContentAsItIsStored(t *testing.T) {
	// %s stands for Received, {id} and {date} for the fields added.
	for name, tt := range map[string]struct{ in, want string }{
		"complete": {
			"Date: d\r\nMessage-Id: <m@x>\r\n\r\nbody",
			"%sDate: d\r\nMessage-Id: <m@x>\r\n\r\nbody\r\n",
		},
		"missing fields": {"Subject: s\r\n\r\nbody", "%s{id}{date}Subject: s\r\n\r\nbody\r\n"},
		"order and spelling stay": {
			"X-b:  1 \r\nx-A :2\r\n\tfolded\r\nDate: d\r\nMESSAGE-ID: <m@x>\r\n\r\n",
			"%sX-b:  1 \r\nx-A :2\r\n\tfolded\r\nDate: d\r\nMESSAGE-ID: <m@x>\r\n\r\n\r\n",
		},
		"X-SMTPAPI goes, folded and repeated": {
			"Date: d\r\nX-SMTPAPI: {\"category\":\r\n \"c\"}\r\nMessage-ID: <m@x>\r\nx-smtpapi: not json\r\nSubject: s\r\n\r\nX-SMTPAPI: stays",
			"%sDate: d\r\nMessage-ID: <m@x>\r\nSubject: s\r\n\r\nX-SMTPAPI: stays\r\n",
		},
		"no body":                {"Date: d\r\nMessage-ID: <m@x>", "%sDate: d\r\nMessage-ID: <m@x>\r\n"},
		"no header":              {"\r\nbody", "%s{id}{date}\r\nbody\r\n"},
		"a body in place of one": {"just text\r\n\r\nmore", "%s{id}{date}\r\njust text\r\n\r\nmore\r\n"},
		"broken header":          {"Date: d\r\nMessage-ID: <m@x>\r\nnot a field\r\nX: y\r\n\r\nbody", "%sDate: d\r\nMessage-ID: <m@x>\r\nnot a field\r\nX: y\r\n\r\nbody\r\n"},
		"broken before X-SMTPAPI": {
			"not a field\r\n more\r\nX-SMTPAPI: {}\r\nDate: d\r\n--\r\nMessage-ID: <m@x>\r\n\r\nbody",
			"%snot a field\r\n more\r\nDate: d\r\n--\r\nMessage-ID: <m@x>\r\n\r\nbody\r\n",
		},
		"byte order mark":         {"\ufeffSubject: s\r\nDate: d\r\nMessage-ID: <m@x>\r\n\r\nbody", "%s\ufeffSubject: s\r\nDate: d\r\nMessage-ID: <m@x>\r\n\r\nbody\r\n"},
		"empty line forgotten":    {"Date: d\r\nMessage-ID: <m@x>\r\nDear all,\r\nhello\r\n\r\nmore", "%sDate: d\r\nMessage-ID: <m@x>\r\n\r\nDear all,\r\nhello\r\n\r\nmore\r\n"},
		"continuation of nothing": {" folded\r\nDate: d\r\n\r\nbody", "%s{id}{date}\r\n folded\r\nDate: d\r\n\r\nbody\r\n"},
		"from an mbox": {
			"From a@b.example Sat Jan  3 01:05:34 1996\r\nDate: d\r\nMessage-ID: <m@x>\r\n\r\nFrom here on: body",
			"%sDate: d\r\nMessage-ID: <m@x>\r\n\r\nFrom here on: body\r\n",
		},
		"from an mbox, twice":     {"From a\r\n>From b\r\nDate: d\r\nMessage-ID: <m@x>\r\n>From c\r\n\r\nbody", "%sDate: d\r\nMessage-ID: <m@x>\r\n\r\n>From c\r\n\r\nbody\r\n"},
		"from an mbox, no header": {"From a\r\n\r\nbody", "%s{id}{date}\r\nbody\r\n"},
		"from an mbox, only that": {"From a", "%s{id}{date}"},
		"no mbox":                 {"From : a@b.example\r\nDate: d\r\nMessage-ID: <m@x>\r\n\r\nbody", "%sFrom : a@b.example\r\nDate: d\r\nMessage-ID: <m@x>\r\n\r\nbody\r\n"},
		"bare LF":                 {"From a\nDate: d\nMessage-ID:\n <m@x>\nX-SMTPAPI: {}\n\nbody\n\nend", "%sDate: d\r\nMessage-ID:\r\n <m@x>\r\n\r\nbody\r\n\r\nend\r\n"},
		"CR CR LF":                {"Date: d\r\r\nMessage-ID: <m@x>\r\r\n\r\r\nbody", "%sDate: d\r\nMessage-ID: <m@x>\r\n\r\nbody\r\n"},
		"stray CR":                {"Date: d\rX: y\r\nMessage-ID: <m@x>\r\n\r\nbo\rdy", "%sDate: d X: y\r\nMessage-ID: <m@x>\r\n\r\nbo dy\r\n"},
		"NUL":                     {"Date: d\r\nMessage-ID: <m@x>\r\n\r\n\x00bo\x00dy", "%sDate: d\r\nMessage-ID: <m@x>\r\n\r\n\x00bo\x00dy\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, nil)
			c := w.ready()
			if got := c.data(tt.in); !strings.HasPrefix(got, "250") {
				t.Fatal(got)
			}
			c.envelope()
			content := tt.in + "\r\n"
			for i := range len(content) { // one octet a chunk
				c.send("BDAT 1\r\n" + content[i:i+1])
			}
			c.send("BDAT 0 LAST\r\n")
			for range len(content) {
				c.expect("250 2.0.0 Continue")
			}
			c.expect("250 2.0.0 Ok")
			for _, a := range w.in.all() {
				date, id := "Date: "+a.m.Accepted.Format(time.RFC1123Z)+"\r\n", "Message-ID: <"+a.m.ID.String()+"@relay.example>\r\n"
				want := strings.NewReplacer("%s", "", "{date}", date, "{id}", id).Replace(tt.want)
				rcv, rest, _ := strings.Cut(a.body, a.m.Accepted.Format(time.RFC1123Z)+"\r\n")
				if !strings.HasPrefix(rcv, "Received: from client.example ([127.0.0.1])\r\n\tby relay.example with ESMTPA id "+a.m.ID.String()) ||
					!strings.Contains(rcv, "\r\n\tfor <b@rcpt.example>;\r\n\t") {
					t.Errorf("trace %q", rcv)
				}
				if rest != want {
					t.Errorf("stored %q, want %q", rest, want)
				}
				if a.m.SMTPID == "" || a.m.Size != int64(len(a.body)) {
					t.Errorf("%+v", a.m)
				}
			}
		})
	}
}

func TestBDATWithoutFinalLineEndGetsOne(t *testing.T) {
	w := start(t, nil)
	c := w.ready()
	c.envelope()
	c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(simple), simple))
	c.expect("250")
	if body := w.in.all()[0].body; !strings.HasSuffix(body, "\r\n\r\nhello\r\n") {
		t.Errorf("%q", body)
	}
}

func TestContentRefused(t *testing.T) {
	w := start(t, nil)
	c := w.ready()
	for in, want := range map[string]string{
		strings.Repeat("Received: x\r\n", 51) + "\r\n":                    "554 5.4.6",
		strings.Repeat("X-Long: "+strings.Repeat("x", 1000)+"\r\n", 1100): "552 5.3.4 The header section is too big",
		"X-SMTPAPI: {\"to\": [\"x@y.example\"]}\r\n\r\n":                  "550 5.6.0 Invalid SMTPAPI header: to is not supported",
		"X-SMTPAPI: nonsense\r\n\r\n":                                     "550 5.6.0 Invalid SMTPAPI header",
		"Subject: x\r\n\r\n" + strings.Repeat("x", 30<<20):                "552 5.3.4 Message is too big",
	} {
		if got := c.data(in); !strings.HasPrefix(got, want) {
			t.Errorf("%.40q: %s", in, got)
		}
	}
	if got := c.data(strings.Repeat("Received: x\r\n", 50) + "\r\n"); !strings.HasPrefix(got, "250") {
		t.Errorf("50 Received: %s", got)
	}
}

// Events call a message by its Message-ID, in angle brackets, or by one that
// was made for it; the message keeps what it has.
func TestSMTPID(t *testing.T) {
	w := start(t, nil)
	c := w.ready()
	long := "<" + strings.Repeat("x", 998) + ">"
	for field, want := range map[string]string{
		"Message-ID: <m@x>":         "<m@x>",
		"Message-ID: m@x":           "<m@x>",
		"Message-ID:":               "made",
		"Message-ID: <\u009b31m@x>": "made", // a terminal obeys it
		"Message-ID: <\u202em@x>":   "made", // and shows this backwards
		"Message-ID: " + long:       "made",
		"X: no Message-ID":          "made",
	} {
		id := strings.TrimPrefix(c.data(field+"\r\n\r\nbody"), "250 2.0.0 Ok: queued as ")
		if want == "made" {
			want = "<" + id + "@relay.example>"
		}
		all := w.in.all()
		a := all[len(all)-1]
		if a.m.SMTPID != want || !strings.Contains(a.body, field+"\r\n") {
			t.Errorf("%.40s: %.60s, want %s", field, a.m.SMTPID, want)
		}
	}
}

// The bound is about what is stored: making CRLF of LF lets nothing grow beyond
// it, and CRs that go do not count.
func TestSizeIsThatOfMendedContent(t *testing.T) {
	const limit = 5000
	w := start(t, func(o *Options) { o.MaxMessageBytes = limit })
	c := w.ready()
	head := "Subject: a\r\n\r\n"
	room := limit - len(head) - 2
	for content, want := range map[string]string{
		head + strings.Repeat("\n", room/2):                  "250 2.0.0",
		head + strings.Repeat("\n", room/2+1):                "552 5.3.4",
		head + strings.Repeat("\r", 2*limit) + "\r\nx":       "250 2.0.0",
		head + strings.Repeat("\r", room) + "x":              "552 5.3.4",
		head + strings.Repeat("\r", room-1) + "x":            "250 2.0.0",
		strings.Repeat("X: y\n", limit/6-2) + "\nx":          "250 2.0.0",
		strings.Repeat("X: y\n", limit/6) + "\nx":            "552 5.3.4",
		strings.Repeat("X: y\n", limit/6-2) + "\n" + "x\n\n": "250 2.0.0",
	} {
		if got := c.data(content); !strings.HasPrefix(got, want) {
			t.Errorf("%d octets, %.20q: %s, want %s", len(content), content, got, want)
		}
	}
	for _, a := range w.in.all() {
		if _, body, _ := strings.Cut(a.body, "\r\n\r\n"); len(body) > limit {
			t.Errorf("%d octets are stored", len(body))
		}
	}
}

// A large draft is a file: content that comes in pieces of a line each is not
// written so.
func TestSmallPiecesAreGathered(t *testing.T) {
	w := start(t, nil)
	c := w.ready()
	for _, line := range []string{"0123456789\n", "..\r\n"} {
		before := w.in.writes.Load()
		const size = 1 << 20
		if got := c.data("Subject: a\r\n\r\n" + strings.Repeat(line, size/len(line))); !strings.HasPrefix(got, "250") {
			t.Fatal(got)
		}
		if n := w.in.writes.Load() - before; n > size/1000 {
			t.Errorf("%q: %d writes", line, n)
		}
	}
}
