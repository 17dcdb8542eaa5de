package content

import (
	"bytes"
	"testing"
)

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
