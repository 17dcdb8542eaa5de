package jsonobject

import (
	"bytes"
	"encoding/json"
	"testing"

	"pgregory.net/rapid"
)

// The standard encoder is the reference for escaping and layout.
func TestStringsAgainstEncoder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(
			rapid.String(),
			rapid.StringMatching(`[<>&"\\/\x00-\x1f\x7f\x{2027}-\x{202a}\x{fffd}a]*`),
			rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
		).Draw(t, "s")
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := AppendString(nil, s); !bytes.Equal(got, want) {
			t.Fatalf("%q: %s, want %s", s, got, want)
		}
	})
}
