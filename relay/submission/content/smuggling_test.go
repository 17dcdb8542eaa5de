package content

import (
	"bytes"
	"regexp"
	"testing"

	"tlsrelay/relay/relaytest"
)

// refUndot is the octet-at-a-time state machine that undot must agree with.
func refUndot(w []byte) (content []byte, used int, end, doubtful bool) {
	behind := func(i int, end string) bool { return bytes.HasSuffix(w[:i], []byte(end)) }
	dropped := -1 // where the last dot was taken off: what stands before it ends no line
	for i := 0; i < len(w); i++ {
		crlf := i == 0 || behind(i, "\r\n") && dropped != i-2
		if w[i] == '.' && crlf {
			if bytes.HasPrefix(w[i:], []byte(".\r\n")) {
				return content, i + 3, true, behind(i, "\r\r\n") && dropped != i-3
			}
			if len(w)-i < 3 && bytes.HasPrefix([]byte(".\r\n"), w[i:]) {
				return content, i, false, false
			}
			dropped = i
			continue
		}
		if w[i] == '.' && behind(i, "\n.") && dropped != i-1 {
			dropped = i
			continue
		}
		content = append(content, w[i])
	}
	return content, len(w), false, false
}

func FuzzUndot(f *testing.F) {
	for _, e := range relaytest.LookAlikes {
		f.Add([]byte("a: b\r\n\r\nx"+e.Wire+"y\r\n.\r\nNOOP\r\n"), uint8(3))
	}
	f.Add([]byte("\r\n.\r\n"), uint8(1))
	f.Add([]byte("..\r\n.\r\n"), uint8(2))
	f.Add([]byte("x\r\r\n.\r\n"), uint8(0))
	f.Add([]byte("\r\n.\r\r\n.\r\n"), uint8(0))
	f.Fuzz(func(t *testing.T, wire []byte, step uint8) {
		want, wantUsed, wantEnd, wantDoubtful := refUndot(wire)
		var got []byte
		var u Undot
		used, have, end := 0, 0, false
		for !end && have < len(wire) {
			have = min(len(wire), have+1+int(step))
			var n int
			n, end = u.Next(wire[used:have], func(b []byte) { got = append(got, b...) })
			used += n
		}
		if !bytes.Equal(got, want) || used != wantUsed || end != wantEnd || u.Doubtful != wantDoubtful {
			t.Fatalf("%q by %d: %q %d %v %v, want %q %d %v %v", wire, step, got, used, end, u.Doubtful, want, wantUsed, wantEnd, wantDoubtful)
		}
	})
}

var refEndLike = regexp.MustCompile(`(?:^|\n)\x00+\.\x00*(?:\r\n|$)`)

// FuzzScan: the line of NULs and a dot is found however content is cut.
func FuzzScan(f *testing.F) {
	for _, e := range relaytest.EndsElsewhere {
		f.Add([]byte("a: b\r\n\r\nx"+e+"y\r\n"), uint8(3))
	}
	f.Add([]byte("gr\xc3\xbc\xc3\x9fe\r\n"), uint8(7))
	f.Add([]byte("\x00.\x00"), uint8(0))
	f.Add([]byte("\x00..\r\n\x00\r\n.\r\n"), uint8(40))
	f.Fuzz(func(t *testing.T, content []byte, step uint8) {
		content = refMend(content)
		want := bytes.ContainsFunc(content, func(r rune) bool { return r >= 0x80 })
		var got scan
		for rest := content; len(rest) > 0; {
			n := min(len(rest), 1+int(step))
			if n < len(rest) && rest[n-1] == '\r' {
				n++ // newlines keeps them together
			}
			got.next(rest[:n])
			rest = rest[n:]
		}
		got.end()
		if got.eightBit != want || got.endLike != refEndLike.Match(content) {
			t.Fatalf("%q by %d: %+v", content, step, got)
		}
	})
}

// receivers are what servers make of an octet or two before they look for the
// line that ends DATA, and what ends a line to them.
var receivers = map[string]func(wire []byte) (lines [][]byte){
	"strict": func(w []byte) [][]byte { return bytes.Split(w, []byte("\r\n")) },
	"LF":     func(w []byte) [][]byte { return bytes.Split(bytes.ReplaceAll(w, []byte("\r"), nil), []byte("\n")) },
	"CR":     func(w []byte) [][]byte { return bytes.Split(bytes.ReplaceAll(w, []byte("\n"), nil), []byte("\r")) },
	"any": func(w []byte) [][]byte {
		return bytes.FieldsFunc(w, func(r rune) bool { return r == '\r' || r == '\n' })
	},
	"no NUL": func(w []byte) [][]byte {
		return bytes.Split(bytes.ReplaceAll(bytes.ReplaceAll(w, []byte{0}, nil), []byte("\r"), nil), []byte("\n"))
	},
}

// FuzzSmuggling: what is taken by DATA or in chunks and sent on by DATA has
// one end, and whatever a receiver takes for a line end, it finds the same.
func FuzzSmuggling(f *testing.F) {
	for _, e := range relaytest.LookAlikes {
		f.Add([]byte("x" + e.Wire + "y\r\n.\r\n"))
	}
	for _, e := range relaytest.EndsElsewhere {
		f.Add([]byte("x" + e + "y\r\n.\r\n"))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		taken := func(content []byte) {
			content, _ = mend(content, max(1, len(content)))
			var s scan
			s.next(content)
			if s.end(); s.endLike {
				return
			}
			if !bytes.HasSuffix(content, lineEnd) {
				content = append(content, lineEnd...)
			}
			sent := bytes.ReplaceAll(append([]byte("\n"), content...), []byte("\n."), []byte("\n.."))[1:] // as relay/deliver does
			for name, lines := range receivers {
				for _, line := range lines(sent) {
					if string(line) == "." {
						t.Fatalf("%q is sent as %q, and ends early for %s", wire, sent, name)
					}
				}
			}
		}
		taken(wire)
		var content []byte
		var u Undot
		if _, end := u.Next(wire, func(b []byte) { content = append(content, b...) }); end && !u.Doubtful {
			taken(content)
		}
	})
}
