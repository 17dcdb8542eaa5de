package relay

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestParseMessageID(t *testing.T) {
	id := NewMessageID(time.Now())
	text := id.String()
	if got, err := ParseMessageID(text); err != nil || got != id {
		t.Errorf("%q: %v, %v", text, got, err)
	}
	// One id has one written form: it names files, and is what people search for.
	for _, s := range []string{
		"", text[:21], text + "A", text + "=", text + "==", text + "\n", text[:10] + "\r\n" + text[10:], "\n" + text,
		text[:21] + ".", text[:21] + "/", text[:21] + "+", strings.Repeat("A", 21) + "B", // the last one has bits that nothing reads
	} {
		if got, err := ParseMessageID(s); err == nil {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}

// FuzzParseMessageID holds an id to one written form of 22 characters, however it
// comes: in a path, in JSON, from the name of a file.
func FuzzParseMessageID(f *testing.F) {
	now := NewMessageID(time.Now()).String()
	for _, s := range []string{now, now + "\n", "\r" + now[1:], now + "==", "", strings.Repeat("A", 22), strings.Repeat("A", 21) + "B", strings.Repeat("_", 22), "../../../../etc/passwd"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseMessageID(s)
		var fromJSON MessageID
		text, _ := json.Marshal(s)
		if jerr := json.Unmarshal(text, &fromJSON); (jerr == nil) != (err == nil) || fromJSON != id {
			t.Fatalf("%q: %v, %v, and in JSON %v, %v", s, id, err, fromJSON, jerr)
		}
		if err != nil {
			if id != (MessageID{}) {
				t.Fatalf("%q is refused and gives %v", s, id)
			}
			return
		}
		if id.String() != s || len(s) != 22 {
			t.Fatalf("%q is taken for %q", s, id)
		}
	})
}
