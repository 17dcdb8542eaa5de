package submission

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/mail"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tlsrelay/relay"
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
				date, id := "Date: "+a.m.Accepted.Format(dateLayout)+"\r\n", "Message-ID: <"+a.m.ID.String()+"@relay.example>\r\n"
				want := strings.NewReplacer("%s", "", "{date}", date, "{id}", id).Replace(tt.want)
				rcv, rest, _ := strings.Cut(a.body, a.m.Accepted.Format(dateLayout)+"\r\n")
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
	long := "<" + strings.Repeat("x", maxMessageID) + ">"
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

func TestSMTPAPI(t *testing.T) {
	long := strings.Repeat("x", 5000)
	var rcpts []relay.Recipient
	for _, s := range []string{"B@rcpt.example", "c@bücher.example", "B@rcpt.example"} {
		a, err := relay.ParseAddress(s, true)
		if err != nil {
			t.Fatal(err)
		}
		rcpts = append(rcpts, relay.Recipient{Address: a})
	}
	for _, tt := range []struct{ in, category, args, fault string }{
		{in: `{}`, args: "map[]"},
		{in: `{"category": "a"}`, category: `"a"`, args: "map[]"},
		{in: `{"category": ["a", "b"]}`, category: `["a","b"]`, args: "map[]"},
		{in: `{"category": null, "unique_args": null}`, args: "map[]"},
		{in: `{"filters": {}, "asm_group_id": 1, "ip_pool": "p"}`, args: "map[]"},
		{in: `{"unique_args": {"a": "1", "b": 2, "c": false, "d": null}}`, args: "map[a:1 b:2 c:false d:]"},
		{in: `=?UTF-8?B?eyJjYXRlZ29yeSI6ImEifQ==?=`, category: `"a"`, args: "map[]"},
		{in: `=?UTF-8?Q?=7B=22category=22=3A?= =?UTF-8?Q?=22a=22=7D?=`, category: `"a"`, args: "map[]"},
		{in: `{"category": "=?UTF-8?Q?a?="}`, category: `"=?UTF-8?Q?a?="`, args: "map[]"},
		{in: `{"unique_args": {"a": "` + long + `", "b": "` + long[2:] + `"}}`, args: ""},
		{in: ``, args: "map[]"},
		{in: ` `, args: "map[]"},
		{in: `[]`, args: "map[]"},
		{in: `[ ]`, args: "map[]"},
		{in: `null`, args: "map[]"},
		{in: `""`, args: "map[]"},
		{in: `=?UTF-8?B??=`, args: "map[]"},
		{in: `{"to":[],"sub":{},"section":{ },"send_at":null,"send_each_at":"","unique_args":[],"category":[],"filters":[]}`, args: "map[]"},
		{in: `{"to":null,"send_at":0,"send_each_at":[],"unique_args":"","category":"","filters":{}}`, args: "map[]"},
		{in: `{"to":["B@Rcpt.EXAMPLE","c@xn--bcher-kva.example", "B@rcpt.example"]}`, args: "map[]"},
		{in: `{"to":["The B <B@rcpt.example>","c@bücher.example."]}`, args: "map[]"},
		{in: `{"to":["", null]}`, args: "map[]"},
		{in: `{"to":["B@rcpt.example"]}`, fault: "Invalid SMTPAPI header: to is not supported"},
		{in: `{"to":["b@rcpt.example","c@bücher.example"]}`, fault: "Invalid SMTPAPI header: to is not supported"},
		{in: `{"to":["B@rcpt.example","c@bücher.example","d@rcpt.example"]}`, fault: "Invalid SMTPAPI header: to is not supported"},
		{in: `{"to":"B@rcpt.example"}`, fault: "Invalid SMTPAPI header: to is not supported"},
		{in: `{"to":["nobody"]}`, fault: "Invalid SMTPAPI header: to is not supported"},
		{in: `{"to":{"B@rcpt.example":1}}`, fault: "Invalid SMTPAPI header: to is not supported"},
		{in: `{"category": 7}`, category: `"7"`, args: "map[]"},
		{in: `{"category": 0}`, category: `"0"`, args: "map[]"},
		{in: `{"category": [1, "a" , 2.50, true, null, ""]}`, category: `["1","a","2.50","true"]`, args: "map[]"},
		{in: `{"category": [null]}`, args: "map[]"},
		{in: `{"category": [["a"]]}`, fault: "Invalid SMTPAPI header: category is neither a string nor an array of strings"},
		{in: `{"category": {"a": 1}}`, fault: "Invalid SMTPAPI header: category is neither a string nor an array of strings"},
		{in: `{"unique_args": {"a": [], "b": {}, "c": ""}}`, args: "map[a: b: c:]"},
		{in: `{"filters": {"clicktrack": {"settings": {"enable": 1}}, "opentrack": {"settings": {"enable": 1}}}}`, args: "map[]"},
		{in: `{"filters": {"bcc": {"settings": {"enable": 0, "email": "x@y.example"}}, "footer": {"settings": {"enable": "0"}}, "template": {"settings": {"enable": false}}}}`, args: "map[]"},
		{in: `{"filters": {"bcc": {}, "footer": {"settings": []}, "templates": null, "template": 0}}`, args: "map[]"},
		{in: `{"filters": {"bcc": {"settings": {"enable": 1, "email": "x@y.example"}}}}`, fault: "Invalid SMTPAPI header: filter bcc is not supported"},
		{in: `{"filters": {"bcc": {"enable": true}}}`, fault: "Invalid SMTPAPI header: filter bcc is not supported"},
		{in: `{"filters": {"footer": {"settings": {"enable": "1", "text/plain": "x"}}}}`, fault: "Invalid SMTPAPI header: filter footer is not supported"},
		{in: `{"filters": {"template": {"settings": {"enable": "true"}}}}`, fault: "Invalid SMTPAPI header: filter template is not supported"},
		{in: `{"filters": {"templates": {"settings": {"template_id": "5997"}}}}`, fault: "Invalid SMTPAPI header: filter templates is not supported"},
		{in: `{"filters": {"Footer": 1}}`, fault: "Invalid SMTPAPI header: filter footer is not supported"},
		{in: `{"filters": ["bcc"]}`, fault: "Invalid SMTPAPI header: filters is not an object"},
		{in: `["a"]`, fault: "Invalid SMTPAPI header"},
		{in: `7`, fault: "Invalid SMTPAPI header"},
		{in: `"x"`, fault: "Invalid SMTPAPI header"},
		{in: `{"category": "a"`, fault: "Invalid SMTPAPI header"},
		{in: `{} {}`, fault: "Invalid SMTPAPI header"},
		{in: `{"sub": {"-name-": [""]}}`, fault: "Invalid SMTPAPI header: sub is not supported"},
		{in: `{"section": {"a": "b"}}`, fault: "Invalid SMTPAPI header: section is not supported"},
		{in: `{"send_at": 1}`, fault: "Invalid SMTPAPI header: send_at is not supported"},
		{in: `{"send_each_at": [1]}`, fault: "Invalid SMTPAPI header: send_each_at is not supported"},
		{in: `{"category": ["1","2","3","4","5","6","7","8","9","10","11"]}`, fault: "Invalid SMTPAPI header: more than 10 categories"},
		{in: `{"category": "` + long + long + `"}`, fault: "Invalid SMTPAPI header: category has more than 10000 bytes"},
		{in: `{"unique_args": ["a"]}`, fault: "Invalid SMTPAPI header: unique_args is not an object"},
		{in: `{"unique_args": {"a": {"b": 1}}}`, fault: "Invalid SMTPAPI header: a value in unique_args is not a string"},
		{in: `{"unique_args": {"a": "` + long + `", "b": "` + long + `"}}`, fault: "Invalid SMTPAPI header: unique_args has more than 10000 bytes"},
	} {
		api, err := parseSMTPAPI(tt.in, rcpts)
		switch {
		case err != nil && err.Error() != tt.fault, err == nil && tt.fault != "":
			t.Errorf("%.60s: %v", tt.in, err)
		case err != nil:
		case string(api.category) != tt.category, tt.args != "" && fmt.Sprint(api.uniqueArgs) != tt.args:
			t.Errorf("%.60s: %s %v", tt.in, api.category, api.uniqueArgs)
		}
	}
}

func FuzzSMTPAPI(f *testing.F) {
	f.Add(`{"category": ["a"], "unique_args": {"a": 1}}`)
	f.Add(`=?UTF-8?B?eyJjYXRlZ29yeSI6ImEifQ==?=`)
	f.Add(`{"category": [1, null, [], "a"], "to": ["A <a@b.example>", ""], "filters": {"bcc": {"settings": {"enable": 1}}}}`)
	f.Fuzz(func(t *testing.T, value string) {
		api, err := parseSMTPAPI(value, nil)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "Invalid SMTPAPI header") || strings.ContainsAny(err.Error(), "\r\n") {
				t.Fatalf("reply %q", err)
			}
			return
		}
		if len(api.category) > 0 && !json.Valid(api.category) {
			t.Fatalf("category %q", api.category)
		}
	})
}

// FuzzHeader holds the splitter to what it must never do: lose, add or
// reorder an octet of what is kept.
func FuzzHeader(f *testing.F) {
	f.Add([]byte("A: b\r\n c\r\nX-SMTPAPI: {}\r\n\t{}\r\nDate : d\r\n"))
	f.Add([]byte("Received: x\r\nnot a field\r\nX-SMTPAPI: {}\r\n"))
	f.Add([]byte(" folded first\r\nX-SMTPAPI:"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h := parseHeader(b)
		var all, dropped []byte
		for fl := range fields(b) {
			if len(all) < len(b)-len(h.rest) && fl.is("X-SMTPAPI") {
				dropped = append(dropped, fl.raw...)
			}
			all = append(all, fl.raw...)
			_ = fl.value()
		}
		if !bytes.Equal(all, b) {
			t.Fatalf("the fields of %q are not all of it", b)
		}
		if !bytes.HasSuffix(b, h.rest) || len(h.rest) < len(b) && len(h.rest) > 0 && !fieldless(h.rest) {
			t.Fatalf("the rest of %q is %q", b, h.rest)
		}
		if n := mboxLines(b); n > 0 && n < len(b) && b[n-1] != '\n' {
			t.Fatalf("%q has an mbox line of %d octets", b, n)
		}
		kept := bytes.Join(h.keep, nil)
		if len(kept)+len(dropped)+len(h.rest) != len(b) {
			t.Fatalf("%q keeps %q and drops %q", b, kept, dropped)
		}
		for fl := range fields(kept) {
			if fl.is("X-SMTPAPI") {
				t.Fatalf("%q still has it: %q", b, kept)
			}
		}
	})
}

func fieldless(b []byte) bool {
	for f := range fields(b) {
		if f.name != nil {
			return false
		}
	}
	return true
}

// FuzzPath: whatever go-smtp would take, what we read is one valid address
// that comes back as itself.
func FuzzPath(f *testing.F) {
	f.Add(`RCPT TO:<"a>b\"c"@d.example> NOTIFY=NEVER`)
	f.Add(`MAIL FROM: a@b.example SIZE=1`)
	f.Add(`RCPT TO:<a@b`)
	f.Fuzz(func(t *testing.T, line string) {
		p, ok := splitPath(line)
		if !ok {
			return
		}
		a, err := relay.ParseAddress(p.path, true)
		if err != nil {
			return
		}
		again, ok := splitPath("RCPT TO:<" + a.String() + "> NOTIFY=NEVER")
		if b, err := relay.ParseAddress(again.path, true); !ok || err != nil || b != a {
			t.Fatalf("%q -> %q -> %q %v", line, a, again.path, err)
		}
	})
}

// What every recipient's events repeat is bounded by how often that is.
func TestRepeatable(t *testing.T) {
	for _, c := range []struct {
		category string
		rcpts    int
		want     bool
	}{
		{`"newsletter"`, 1000, true},
		{`"` + strings.Repeat("a", 9990) + `"`, 1000, true},
		{`"` + strings.Repeat("<", 9990) + `"`, 1, true},
		{`"` + strings.Repeat("<", 9990) + `"`, 1000, false},
	} {
		m := submitted{env: &envelope{rcpts: make([]relay.Recipient, c.rcpts)}, api: smtpAPI{category: json.RawMessage(c.category)}}
		if got := m.repeatable(); got != c.want {
			t.Errorf("%.20s for %d: %v", c.category, c.rcpts, got)
		}
	}
}

func TestReceived(t *testing.T) {
	only, _ := relay.ParseAddress(`"a b"@c.example`, false)
	tr := trace{
		hello: "evil\r\nX: y", ip: netip.MustParseAddr("2001:db8::1"), host: host, id: relay.MessageID{}.String(), at: time.Unix(0, 0).UTC(),
		esmtp: true, tls: "TLS 1.2:TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", only: only,
	}
	got := string(tr.received(nil))
	want := "Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])\r\n\tby relay.example with ESMTPS id AAAAAAAAAAAAAAAAAAAAAA\r\n" +
		"\t(TLS 1.2:TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)\r\n\tfor <\"a b\"@c.example>;\r\n\tThu, 01 Jan 1970 00:00:00 +0000\r\n"
	if got != want {
		t.Errorf("%q", got)
	}
	if m, err := mail.ReadMessage(strings.NewReader(got + "\r\n")); err != nil || len(m.Header) != 1 {
		t.Error(m, err)
	}
	for address, want := range map[string]string{"b@bücher.example": "for <b@xn--bcher-kva.example>", "bücher@x.example": ""} {
		tr.only, _ = relay.ParseAddress(address, true)
		got := string(tr.received(nil))
		if hasEightBit([]byte(got)) || want != "" && !strings.Contains(got, want) || want == "" && strings.Contains(got, "for <") {
			t.Errorf("%s: %q", address, got)
		}
	}
	if p := (trace{}).protocol(); p != "SMTP" {
		t.Error(p)
	}
}
