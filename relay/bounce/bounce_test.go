package bounce

import (
	"bytes"
	"flag"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var (
	accepted = time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC)
	now      = accepted.Add(90 * time.Minute)
	options  = Options{Hostname: "relay.example", Now: now, ID: relay.MessageID{1, 2, 3, 15: 9}}
)

type stored string

func (s stored) NewReader() io.Reader { return strings.NewReader(string(s)) }
func (s stored) Size() int64          { return int64(len(s)) }
func (stored) Close() error           { return nil }

const original1 = "From: Ann <ann@origin.example>\r\nTo: bob@dest.example\r\nSubject: Figures\r\n =?utf-8?q?_f=C3=BCr_M=C3=A4rz?=\r\nMessage-ID: <abc@origin.example>\r\n\r\nthe secret body\r\n"

func address(s string) relay.Address {
	a, err := relay.ParseAddress(s, true)
	if err != nil {
		panic(err)
	}
	return a
}

func msg() relay.Message {
	return relay.Message{
		ID: relay.NewMessageID(accepted), Account: "7", Accepted: accepted,
		From: address("ann@origin.example"), SMTPID: "<abc@origin.example>",
	}
}

func failed(to, diagnostic string) relay.NoticeRecipient {
	return relay.NoticeRecipient{
		Action: relay.ActionFailed, Recipient: relay.Recipient{Address: address(to), State: relay.Bounced},
		Status: "5.1.1", Diagnostic: diagnostic, Remote: true, RemoteMTA: "mx.dest.example",
	}
}

func blocked() relay.NoticeRecipient {
	return relay.NoticeRecipient{
		Action: relay.ActionFailed, Recipient: relay.Recipient{Address: address("bob@dest.example"), State: relay.Blocked},
		Demand: true, Status: "5.7.10", Diagnostic: events.TLSBlocked + ": starttls_not_offered at mx1.dest.example", RemoteMTA: "mx1.dest.example",
		Hosts: []relay.HostEvidence{
			{Host: "mx1.dest.example", Address: "192.0.2.1", Verdict: policy.Verdict{Reason: events.StartTLSNotOffered}},
			{Host: "mx2.dest.example", Address: "2001:db8::2", Verdict: policy.Verdict{Reason: events.CertName}, TLS: &policy.Session{Version: policy.TLS12}},
			{Host: "mx3.dest.example", Verdict: policy.Verdict{Reason: events.HostAddress}},
		},
	}
}

// wicked is what a host, or a sender in ORCPT, may say to write fields, parts
// or lines of its own.
const wicked = "550 no\r\nAction: delivered\r\n\r\n--=_AQIDAAAAAAAAAAAAAAAACQ\r\nContent-Type: text/html\r\n\r\n<script>\x00\x1b[2J\u202egnp \xff\r.\r\n"

func TestGolden(t *testing.T) {
	for name, c := range map[string]struct {
		m    relay.Message
		n    relay.Notice
		body relay.Body
	}{
		"failed": {msg(), relay.Notice{Recipients: []relay.NoticeRecipient{
			failed("bob@dest.example", "550 5.1.1 <bob@dest.example>: no such user here"),
		}}, stored(original1)},
		"headers": {func() relay.Message {
			m := msg()
			m.Return, m.EnvelopeID = relay.ReturnHeaders, "QQ314159"
			return m
		}(), relay.Notice{Recipients: []relay.NoticeRecipient{func() relay.NoticeRecipient {
			r := failed("bob@dest.example", "550 5.1.1 unknown")
			r.Recipient.OriginalType, r.Recipient.Original = "rfc822", "robert@alias.example"
			return r
		}()}}, stored(original1)},
		"blocked": {func() relay.Message { m := msg(); m.Return = relay.ReturnFull; return m }(),
			relay.Notice{HeadersOnly: true, Recipients: []relay.NoticeRecipient{blocked()}}, stored(original1)},
		"blocked_reply": {msg(), relay.Notice{HeadersOnly: true, Recipients: []relay.NoticeRecipient{func() relay.NoticeRecipient {
			r := blocked()
			r.Diagnostic, r.Remote, r.Hosts = "454 4.7.0 TLS not available", true, r.Hosts[:1]
			return r
		}()}}, stored(original1)},
		"dropped": {msg(), relay.Notice{Recipients: []relay.NoticeRecipient{{
			Action: relay.ActionFailed, Recipient: relay.Recipient{Address: address("bob@dest.example"), State: relay.Dropped},
			Status: "5.7.1", Diagnostic: "dropped by the operator of the relay",
		}}}, stored(original1)},
		"delayed": {msg(), relay.Notice{WillRetryTo: accepted.Add(72 * time.Hour), Recipients: []relay.NoticeRecipient{{
			Action: relay.ActionDelayed, Recipient: relay.Recipient{Address: address("bob@dest.example")},
			Status: "4.4.1", Diagnostic: "connection refused",
		}}}, stored(original1)},
		"relayed_and_failed": {msg(), relay.Notice{Recipients: []relay.NoticeRecipient{
			{Action: relay.ActionRelayed, Recipient: relay.Recipient{Address: address("eve@dest.example"), State: relay.Delivered},
				Status: "2.0.0", Diagnostic: "250 2.0.0 ok", Remote: true, RemoteMTA: "mx.dest.example"},
			failed("bob@dest.example", "550 5.1.1 unknown"),
		}}, stored(original1)},
		"no_original": {msg(), relay.Notice{Recipients: []relay.NoticeRecipient{failed("bob@dest.example", "550 no")}}, nil},
		"wicked": {func() relay.Message { m := msg(); m.EnvelopeID = wicked; m.SMTPID = "<a>\r\nBcc: x@y\r\n"; return m }(),
			relay.Notice{Recipients: []relay.NoticeRecipient{func() relay.NoticeRecipient {
				r := failed("bob@dest.example", wicked+strings.Repeat("x", 3000))
				r.Recipient.OriginalType, r.Recipient.Original, r.RemoteMTA, r.Status = wicked, wicked, wicked, "5.0.0\r\nX: y"
				r.Hosts = []relay.HostEvidence{{Host: wicked, Address: wicked}}
				return r
			}()}}, stored(original1)},
		"international": {func() relay.Message {
			m := msg()
			m.SMTPUTF8, m.From = true, address("ånn@origin.example")
			return m
		}(), relay.Notice{Recipients: []relay.NoticeRecipient{
			failed("bøb@dest.example", "550 5.1.1 gibt es nicht, schöne Grüße\u202e"),
		}}, stored(strings.Replace(original1, "Ann", "Ånn", 1))},
	} {
		t.Run(name, func(t *testing.T) {
			got := Write(c.m, c.n, c.body, options)
			check(t, got)
			file := filepath.Join("testdata", name+".eml")
			if *update {
				if err := os.WriteFile(file, got.Body, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Body, want) {
				t.Errorf("differs from %s:\n%s", file, got.Body)
			}
		})
	}
}

// A host that refuses for its own reasons is quoted, whatever its code: only a
// demand of the sender's side is told as one.
func TestRefusalOfTheHostIsNoDemand(t *testing.T) {
	r := failed("bob@dest.example", "550 5.7.1 blocked using a list")
	r.Recipient.State, r.Status = relay.Blocked, "5.7.1"
	got := string(Write(msg(), relay.Notice{Recipients: []relay.NoticeRecipient{r}}, stored(original1), options).Body)
	if strings.Contains(got, events.TLSBlocked) || !strings.Contains(got, "Diagnostic-Code: smtp; 550 5.7.1 blocked using a list") {
		t.Errorf("report\n%s", got)
	}
}

// check holds any report to the RFCs: lines, structure, fields.
func check(t *testing.T, r relay.Report) (parts [][]byte) {
	t.Helper()
	for i, line := range strings.Split(strings.TrimSuffix(string(r.Body), "\r\n"), "\r\n") {
		if strings.ContainsAny(line, "\r\n\x00\x1b") || len(line) > 998 {
			t.Errorf("line %d: %q", i+1, line)
		}
	}
	m, err := mail.ReadMessage(bytes.NewReader(r.Body))
	if err != nil {
		t.Fatal(err)
	}
	typ, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || typ != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Fatal(typ, params, err)
	}
	if m.Header.Get("Auto-Submitted") != "auto-replied" || m.Header.Get("Message-ID") != r.Message.SMTPID || m.Header.Get("Bcc") != "" {
		t.Errorf("header %v", m.Header)
	}
	if _, err := m.Header.Date(); err != nil {
		t.Error(err)
	}
	mr := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := mr.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		if eight := p.Header.Get("Content-Transfer-Encoding") == "8bit"; eight == isASCII(content) {
			t.Errorf("%s: 8bit is %t", p.Header.Get("Content-Type"), eight)
		}
		parts = append(parts, content)
	}
	if len(parts) != 2 && len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	checkStatus(t, parts[1])
	if r.Message.EightBit == isASCII(r.Body) || r.Message.Size != int64(len(r.Body)) || !r.Message.Report || !r.Message.From.IsNull() {
		t.Errorf("message %+v", r.Message)
	}
	if len(r.Deliveries) != 1 || r.Deliveries[0].Key.Message != r.Message.ID || r.Deliveries[0].Lane.Class != policy.ClassOpportunistic {
		t.Errorf("deliveries %+v", r.Deliveries)
	}
	return parts
}

// checkStatus reads the groups of fields of RFC 3464 §2.1.
func checkStatus(t *testing.T, content []byte) {
	t.Helper()
	for i, group := range strings.Split(strings.TrimSuffix(string(content), "\r\n"), "\r\n\r\n") {
		h, err := mail.ReadMessage(strings.NewReader(group + "\r\n\r\n"))
		if err != nil {
			t.Errorf("group %d: %v\n%s", i, err, group)
			continue
		}
		must := []string{"Reporting-MTA", "Arrival-Date"}
		if i > 0 {
			must = []string{"Final-Recipient", "Action", "Status", "Last-Attempt-Date"}
		}
		for _, field := range must {
			if got := h.Header[textproto.CanonicalMIMEHeaderKey(field)]; len(got) != 1 {
				t.Errorf("group %d: %s is %q", i, field, got)
			}
		}
		if a := h.Header.Get("Action"); i > 0 && a != "failed" && a != "delayed" && a != "relayed" {
			t.Errorf("action %q", a)
		}
	}
}

func TestWhatGoesBack(t *testing.T) {
	small := stored("Subject: s\r\n\r\nthe secret body\r\n")
	big := stored("Subject: s\r\n\r\n" + strings.Repeat("the secret body\r\n", 10_000))
	huge := stored("Subject: s\r\n\r\n" + strings.Repeat("the secret body\r\n", 300_000))
	fail := relay.Notice{Recipients: []relay.NoticeRecipient{failed("bob@dest.example", "550 no")}}
	secret := fail
	secret.HeadersOnly = true
	delay := relay.Notice{Recipients: []relay.NoticeRecipient{{Action: relay.ActionDelayed, Recipient: relay.Recipient{Address: address("b@c.example")}, Status: "4.4.1"}}}
	for _, c := range []struct {
		name       string
		ret        relay.Return
		requireTLS bool
		n          relay.Notice
		body       stored
		full       bool
	}{
		{"small", "", false, fail, small, true},
		{"big", "", false, fail, big, false},
		{"big, RET=FULL", relay.ReturnFull, false, fail, big, true},
		{"huge, RET=FULL", relay.ReturnFull, false, fail, huge, false},
		{"RET=HDRS", relay.ReturnHeaders, false, fail, small, false},
		{"a TLS demand", relay.ReturnFull, false, secret, small, false},
		{"REQUIRETLS", relay.ReturnFull, true, fail, small, false},
		{"a delay", relay.ReturnFull, false, delay, small, false},
		{"empty header", relay.ReturnHeaders, false, fail, "\r\nthe secret body\r\n", false},
		{"header without end", relay.ReturnHeaders, false, fail, "Subject: s\r\n", false},
	} {
		m := msg()
		m.Return, m.RequireTLS = c.ret, c.requireTLS
		r := Write(m, c.n, c.body, options)
		check(t, r)
		if got := bytes.Contains(r.Body, []byte("the secret body")); got != c.full {
			t.Errorf("%s: body returned: %t", c.name, got)
		}
		if said := bytes.Contains(r.Body, []byte("The message is attached.")); said != c.full {
			t.Errorf("%s: said to be attached: %t", c.name, said)
		}
	}
}

// TestWithoutContent: a report that was written with the original's content, and
// leaves when something is demanded, says what it would have said then.
func TestWithoutContent(t *testing.T) {
	for name, body := range map[string]stored{
		"plain":         "Subject: s\r\n\r\nthe secret body\r\n",
		"no line end":   "Subject: s\r\n\r\nthe secret body",
		"no header":     "\r\nthe secret body\r\n",
		"no body":       "Subject: s\r\n",
		"looks like it": "Subject: s\r\n\r\nThe message is attached.\r\n\r\n--=_x\r\nContent-Type: message/rfc822\r\n\r\nthe secret body\r\n",
	} {
		m := msg()
		n := relay.Notice{Recipients: []relay.NoticeRecipient{failed("bob@dest.example", "550 no")}}
		full := Write(m, n, body, options)
		n.HeadersOnly = true
		want := Write(m, n, body, options)
		if full.Message.HeadersOnly || !want.Message.HeadersOnly {
			t.Errorf("%s: marked %t and %t", name, full.Message.HeadersOnly, want.Message.HeadersOnly)
		}
		for _, r := range []relay.Report{full, want} {
			got, err := WithoutContent(stored(r.Body))
			if err != nil {
				t.Fatal(name, err)
			}
			content, _ := io.ReadAll(got.NewReader())
			if string(content) != string(want.Body) || got.Size() != int64(len(content)) {
				t.Errorf("%s: got\n%s\nwant\n%s", name, content, want.Body)
			}
		}
	}
	if _, err := WithoutContent(stored("Subject: s\r\n\r\nhello\r\n")); err == nil {
		t.Error("what is no report was taken for one")
	}
}

func TestLongHeaderEndsAfterAWholeField(t *testing.T) {
	field := "X-Long: " + strings.Repeat("a", 60) + "\r\n\tand on\r\n"
	content := strings.Repeat(field, maxHeader/len(field)+1)
	got := headerOf([]byte(content)[:maxHeader])
	if len(got) == 0 || len(got) > maxHeader || len(got)%len(field) != 0 {
		t.Errorf("cut after %d of %d-octet fields", len(got), len(field))
	}
}

func TestBoundaryIsInNoPart(t *testing.T) {
	id := options.ID.String()
	body := stored("Subject: s\r\n\r\n--=_" + id + "\r\n--=_" + id + "_0--\r\n")
	parts := check(t, Write(msg(), relay.Notice{Recipients: []relay.NoticeRecipient{failed("bob@dest.example", "550 no")}}, body, options))
	// The line end before a boundary belongs to it (RFC 2046 §5.1.1).
	if len(parts) != 3 || string(parts[2]) != string(body) {
		t.Errorf("%d parts, the last %q", len(parts), parts[len(parts)-1])
	}
}

func FuzzWrite(f *testing.F) {
	f.Add("550 5.1.1 no such user", "rfc822", "bob@x.example", "mx.example", "QQ314159", "<a@b>", []byte(original1), false)
	f.Add(wicked, wicked, wicked, wicked, wicked, wicked, []byte("a\nb\rc\x00"), true)
	f.Add(strings.Repeat("ü", 3000), "utf-8", "ü", "münchen.example", "é", "<é@é>", []byte("\xff"), true)
	f.Fuzz(func(t *testing.T, diagnostic, typ, orig, mta, envid, smtpID string, body []byte, utf8 bool) {
		m := msg()
		m.SMTPUTF8, m.EnvelopeID, m.SMTPID = utf8, envid, smtpID
		r := failed("bob@dest.example", diagnostic)
		r.Recipient.OriginalType, r.Recipient.Original, r.RemoteMTA = typ, orig, mta
		r.Hosts = []relay.HostEvidence{{Host: mta, Address: orig}}
		n := relay.Notice{Recipients: []relay.NoticeRecipient{r, blocked()}}
		report := Write(m, n, nil, options)
		check(t, report)
		if !utf8 && !isASCII(report.Body) {
			t.Error("not ASCII")
		}
		// The original goes back as it is.
		if got := Write(m, n, stored(body), options); !bytes.Contains(got.Body, bytes.TrimRight(body, "\r\n")) {
			t.Error("the original was changed")
		}
	})
}
