package submission

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"tlsrelay/relay"
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
	for _, e := range lookAlikes {
		f.Add([]byte("a: b\r\n\r\nx"+e.wire+"y\r\n"), uint8(3))
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
	m := submitted{session: &session{srv: &Server{o: Options{MaxMessageBytes: 1 << 40}}}, inBody: true, draft: discard{}, memory: share{of: newBudget(1 << 30)}}
	for name, b := range map[string][]byte{"in order": clean, "bare": bare} {
		if n := testing.AllocsPerRun(10, func() { m.write(b) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

type discard struct{ relay.Draft }

func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) Size() int64                 { return 0 }

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
