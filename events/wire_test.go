package events

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const testID = "AZqbc0123456789-_abcDE"

func subject() Subject {
	return Subject{
		Account: "7", MessageID: testID, Recipient: 3, Email: "ann@example.com",
		SMTPID: "<m1@sender.example>",
	}
}

var (
	at    = time.Unix(1700000000, 987654321)
	inTLS = Session{LocalIP: "192.0.2.10", Host: "mx1.example.com", TLSVersion: "1.3", CipherName: "TLS_AES_128_GCM_SHA256"}
)

func goldenEvents() map[string]Event {
	withArgs := subject()
	withArgs.Category = json.RawMessage(`[ "news <a&b>", "week 5" ]`)
	withArgs.UniqueArgs = map[string]string{
		"aaa": "1", "event": "mine", "tls": "no", "user-id": "é\u2028\x01", "zz<>": "\"quoted\\\"", "f": "",
	}
	oneCategory := subject()
	oneCategory.Category = json.RawMessage(`"news"`)
	inClear := Session{LocalIP: "192.0.2.10", Host: "mx2.example.com"}
	badCert := inTLS
	badCert.CertErr = true
	return map[string]Event{
		"processed":           NewProcessed(subject(), at),
		"processed_args":      NewProcessed(withArgs, at),
		"deferred":            NewDeferred(oneCategory, at, inTLS, 2, "451 4.3.2 try <later> & again", ReplyTemp),
		"deferred_no_session": NewDeferred(subject(), at, Session{}, 1, "no mail host could be reached", ConnectFail),
		"delivered":           NewDelivered(withArgs, at, inTLS, "250 2.0.0 Ok"),
		"delivered_clear":     NewDelivered(subject(), at, inClear, "250 Ok"),
		"delivered_cert_err":  NewDelivered(subject(), at, badCert, "250 Ok"),
		"bounce":              NewBounce(subject(), at, inTLS, TypeBounce, "550 5.1.1 no such user", "5.1.1", ReplyPerm),
		"blocked_tls":         NewBounce(subject(), at, inClear, TypeBlocked, TLSBlocked, "5.7.10", StartTLSNotOffered),
		"blocked_cert":        NewBounce(subject(), at, badCert, TypeBlocked, TLSBlocked, "5.7.5", CertExpired),
		"blocked_no_session":  NewBounce(withArgs, at, Session{}, TypeBlocked, "no mail host", "5.4.4", NoHost),
	}
}

func TestGolden(t *testing.T) {
	for name, e := range goldenEvents() {
		t.Run(name, func(t *testing.T) {
			golden(t, name+".json", e.AppendJSON(nil))
		})
	}
	t.Run("body", func(t *testing.T) {
		all := goldenEvents()
		golden(t, "body.json", AppendBody(nil,
			all["processed"].AppendJSON(nil), all["delivered"].AppendJSON(nil), all["blocked_tls"].AppendJSON(nil)))
	})
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s\n got %s\nwant %s", name, got, want)
	}
}

// Which fields each kind has, as SendGrid's events have them.
func TestFieldsOfKinds(t *testing.T) {
	always := []string{"email", "event", "sg_event_id", "sg_message_id", "smtp-id", "timestamp"}
	with := func(more ...string) []string { return slices.Sorted(slices.Values(append(more, always...))) }
	for name, want := range map[string][]string{
		"processed":           with(),
		"deferred":            with("attempt", "category", "ip", "response", "tls"),
		"deferred_no_session": with("attempt", "response", "tls"),
		"delivered_clear":     with("ip", "response", "tls"),
		"delivered_cert_err":  with("cert_err", "ip", "response", "tls"),
		"bounce":              with("bounce_classification", "ip", "reason", "status", "tls", "type"),
		"blocked_tls":         with("bounce_classification", "ip", "reason", "status", "tls", "type"),
		"blocked_cert":        with("bounce_classification", "cert_err", "ip", "reason", "status", "tls", "type"),
	} {
		fields := decode(t, goldenEvents()[name])
		if got := slices.Sorted(maps.Keys(fields)); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestFieldTypes(t *testing.T) {
	fields := decode(t, goldenEvents()["deferred"])
	for key, want := range map[string]any{
		"attempt": "2", "tls": 1.0, "timestamp": 1700000000.0, "category": "news", "event": "deferred",
	} {
		if fields[key] != want {
			t.Errorf("%s is %T %v, want %T %v", key, fields[key], fields[key], want, want)
		}
	}
	id := fields["sg_message_id"].(string)
	if !regexp.MustCompile(`^` + testID + `\.recvd-[a-z]+-\d+-[0-9a-f]+-[0-9a-f]+\.3$`).MatchString(id) {
		t.Errorf("sg_message_id %q", id)
	}
	if head, _, _ := strings.Cut(id, "."); head != testID {
		t.Errorf("cut at the first dot: %q", head)
	}
}

func TestUniqueArgsLoseToBuiltIns(t *testing.T) {
	fields := decode(t, goldenEvents()["delivered"])
	if fields["event"] != "delivered" || fields["tls"] != 1.0 {
		t.Errorf("event %v, tls %v", fields["event"], fields["tls"])
	}
	fields = decode(t, goldenEvents()["processed_args"])
	if _, ok := fields["tls"]; ok {
		t.Error("a unique arg took the place of a field this kind does not have")
	}
	if fields["aaa"] != "1" || fields["user-id"] != "é\u2028\x01" || fields["zz<>"] != `"quoted\"` || fields["f"] != "" {
		t.Errorf("unique args: %v", fields)
	}
}

// The id must survive a crash between computing and committing, and differ
// between any two things that happened.
func TestEventID(t *testing.T) {
	other := subject()
	other.Recipient = 4
	a := []Event{
		NewProcessed(subject(), at),
		NewDeferred(subject(), at, Session{}, 1, "x", DNSFail),
		NewDeferred(subject(), at, Session{}, 2, "x", DNSFail),
		NewDelivered(subject(), at, inTLS, "250 ok"),
		NewBounce(subject(), at, inTLS, TypeBlocked, TLSBlocked, "5.7.10", TLSHandshake),
		NewProcessed(other, at),
	}
	seen := make(map[string]bool)
	for _, e := range a {
		if seen[e.ID] || len(e.ID) > 100 || !regexp.MustCompile(`^[A-Za-z0-9_-]+$`).MatchString(e.ID) {
			t.Errorf("id %q of %s", e.ID, e.Kind)
		}
		seen[e.ID] = true
	}
	again := NewDeferred(subject(), at.Add(time.Hour), inTLS, 2, "other words", TLSClosed)
	if again.ID != a[2].ID {
		t.Error("the same attempt, computed again, has another id")
	}
}

func TestCategory(t *testing.T) {
	for raw, want := range map[string]string{
		`"a"`:                        `"a"`,
		` "a"`:                       ``,
		`[ "a" , "b\" ]" ]`:          `["a","b\" ]"]`,
		"[\"<\u2028>\"]":             `["\u003c\u2028\u003e"]`,
		"\"\xff\"":                   `"\ufffd"`,
		`{"a":1}`:                    ``,
		`["a"`:                       ``,
		`null`:                       ``,
		``:                           ``,
		`["a\\", "b"]`:               `["a\\","b"]`,
		"[\r\n\t\"tab\\tinside\"\n]": `["tab\tinside"]`,
	} {
		s := subject()
		s.Category = json.RawMessage(raw)
		got := string(NewProcessed(s, at).AppendJSON(nil))
		if want != "" && !strings.Contains(got, `"category":`+want+`,"email"`) || want == "" && strings.Contains(got, "category") {
			t.Errorf("category %q in %s", raw, got)
		}
	}
}

func TestAppendKeepsWhatIsThere(t *testing.T) {
	got := NewProcessed(subject(), at).AppendJSON([]byte("before"))
	if !bytes.HasPrefix(got, []byte(`before{"email"`)) {
		t.Errorf("%s", got)
	}
}

func FuzzAppendJSON(f *testing.F) {
	f.Add("ann@example.com", "<a@b>", "250 ok", "key", "value", "category")
	f.Add("\xff", "</script>", "5\r\n50", "event", "\u2028", "\"")
	f.Add("a", "", "\x00", "\xff", "\xfe", "\\")
	f.Add("a", "b", "c", "", "d", "]")
	f.Fuzz(func(t *testing.T, email, smtpID, reply, key, value, category string) {
		s := Subject{MessageID: testID, Email: email, SMTPID: smtpID, UniqueArgs: map[string]string{key: value, "k2": email}}
		s.Category, _ = json.Marshal([]string{category})
		e := NewBounce(s, at, Session{LocalIP: reply}, TypeBounce, reply, value, ReplyPerm)
		e.Classification = category
		object := e.AppendJSON(nil)
		if !utf8.Valid(object) {
			t.Fatalf("not UTF-8: %q", object)
		}
		fields := decode(t, e)
		same := func(name, want string) {
			// What is not UTF-8 is replaced, byte by byte, as []rune does.
			if got, ok := fields[name].(string); ok && got != string([]rune(want)) {
				t.Errorf("%s: %q became %q", name, want, got)
			}
		}
		same("email", email)
		same("smtp-id", smtpID)
		same("reason", reply)
		same("ip", reply)
		if got := fields["category"].([]any)[0]; got != string([]rune(category)) {
			t.Errorf("category: %q became %q", category, got)
		}
		if utf8.ValidString(key) && !isBuiltIn(key) && key != "k2" {
			if got, ok := fields[key].(string); !ok || got != string([]rune(value)) {
				t.Errorf("arg %q: %q became %v", key, value, fields[key])
			}
		}
		if body := AppendBody(nil, object, object); !json.Valid(body) {
			t.Errorf("body: %s", body)
		}
		inOrder(t, object)
	})
}

// inOrder checks that the root keys are in alphabetical order, each once.
func inOrder(t *testing.T, object []byte) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(object))
	d.Token()
	last := ""
	for first := true; d.More(); first = false {
		key, _ := d.Token()
		var skip json.RawMessage
		if err := d.Decode(&skip); err != nil {
			t.Fatal(err)
		}
		if !first && key.(string) <= last {
			t.Errorf("key %q after %q", key, last)
		}
		last = key.(string)
	}
}

func decode(t *testing.T, e Event) map[string]any {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal(e.AppendJSON(nil), &fields); err != nil {
		t.Fatalf("%v in %s", err, e.AppendJSON(nil))
	}
	return fields
}

// One allocation, for the order of the unique args, where there are any.
func TestAppendJSONAllocations(t *testing.T) {
	for name, most := range map[string]float64{"blocked_tls": 0, "delivered": 1} {
		e := goldenEvents()[name]
		buf := make([]byte, 0, 2048)
		if n := testing.AllocsPerRun(100, func() { buf = e.AppendJSON(buf[:0]) }); n > most {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	for _, name := range []string{"processed", "delivered", "blocked_tls"} {
		e := goldenEvents()[name]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			buf := make([]byte, 0, 2048)
			for b.Loop() {
				buf = e.AppendJSON(buf[:0])
			}
		})
	}
}

func BenchmarkNewDelivered(b *testing.B) {
	s := subject()
	b.ReportAllocs()
	for b.Loop() {
		NewDelivered(s, at, inTLS, "250 ok")
	}
}
