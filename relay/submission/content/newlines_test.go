package content

import (
	"bytes"
	"regexp"
	"testing"

	"tlsrelay/relay/relaytest"
)

// mend gives content as newlines leaves it, which gets it in pieces.
func mend(content []byte, step int) (mended []byte, n newlines) {
	sink := func(b []byte) {
		if len(b) == 0 {
			panic("an empty part")
		}
		if b[len(b)-1] == '\r' {
			panic("a CR without what follows it")
		}
		mended = append(mended, b...)
	}
	for rest := bytes.Clone(content); len(rest) > 0; {
		k := min(len(rest), step)
		n.next(rest[:k:k], sink)
		rest = rest[k:]
	}
	n.end(sink)
	return mended, n
}

// refMend is what newlines must agree with.
func refMend(content []byte) []byte {
	b := regexp.MustCompile(`\r*\n`).ReplaceAll(content, []byte("\n"))
	b = bytes.ReplaceAll(b, []byte("\r"), []byte(" "))
	return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
}

// FuzzNewlines: however content is cut into pieces, only CRLF is left of its
// line ends, it grows by no more than a CR for each LF, and what is in order
// stays as it is.
func FuzzNewlines(f *testing.F) {
	for _, e := range relaytest.LookAlikes {
		f.Add([]byte("a: b\r\n\r\nx"+e.Wire+"y\r\n"), uint8(3))
	}
	f.Add(bytes.Repeat([]byte{'\r'}, 2000), uint8(255))
	f.Add([]byte("\r\r\n\n\r"), uint8(0))
	f.Fuzz(func(t *testing.T, content []byte, step uint8) {
		want := refMend(content)
		got, n := mend(content, 1+int(step))
		if !bytes.Equal(got, want) {
			t.Fatalf("%q by %d: %q, want %q", content, step, got, want)
		}
		if whole, _ := mend(content, max(1, len(content))); !bytes.Equal(whole, want) {
			t.Fatalf("%q in one piece: %q, want %q", content, whole, want)
		}
		if bare := bytes.ReplaceAll(got, []byte("\r\n"), nil); bytes.ContainsAny(bare, "\r\n") {
			t.Fatalf("%q leaves %q", content, got)
		}
		if bytes.Equal(got, content) == (n.bareCR || n.bareLF) {
			t.Fatalf("%q became %q, bare CR %v, bare LF %v", content, got, n.bareCR, n.bareLF)
		}
		again, n := mend(got, 1+int(step))
		if !bytes.Equal(again, got) || n.bareCR || n.bareLF {
			t.Fatalf("%q became %q", got, again)
		}
	})
}

// What is in order costs nothing but a look.
func TestNewlinesDoNotAllocate(t *testing.T) {
	clean := bytes.Repeat([]byte("0123456789abcdef\r\n"), 1000)
	bare := bytes.Repeat([]byte("0123456789abcdef\n"), 1000)
	r := Rewriter{MaxBytes: 1 << 40, To: discard{}}
	r.Next([]byte("\r\n")) // no header
	for name, b := range map[string][]byte{"in order": clean, "bare": bare} {
		if n := testing.AllocsPerRun(10, func() { r.Next(b) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) Gather(int) error            { return nil }
