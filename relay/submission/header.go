package submission

import (
	"bytes"
	"iter"
	"strings"
)

// Bounds of a header section: what is kept in memory of a message before the
// rest is streamed, and the trace fields that mean a loop (RFC 5321 §6.3).
const (
	maxHeader   = 1 << 20
	maxReceived = 50
)

// field is one header field with its folded lines and its last line end.
type field struct {
	name []byte // as written
	raw  []byte
}

func (f field) is(name string) bool { return bytes.EqualFold(f.name, []byte(name)) }

// value is the field's body, unfolded (RFC 5322 §2.2.3).
func (f field) value() string {
	_, body, _ := bytes.Cut(f.raw, []byte(":"))
	body = bytes.ReplaceAll(body, []byte("\r\n"), nil)
	return strings.TrimSpace(string(body))
}

// headerEnd finds where the header section in b ends: behind the last field's
// line end, before the empty line. It looks from the given offset on only.
func headerEnd(b []byte, from int) (int, bool) {
	if bytes.HasPrefix(b, []byte("\r\n")) {
		return 0, true
	}
	from = max(0, from-3)
	if i := bytes.Index(b[from:], []byte("\r\n\r\n")); i >= 0 {
		return from + i + 2, true
	}
	return 0, false
}

// fields yields the fields of a header section, in order. It stops before the
// first line that belongs to no field; what was yielded is all of b iff the
// section is well-formed.
func fields(b []byte) iter.Seq[field] {
	return func(yield func(field) bool) {
		for len(b) > 0 {
			name, ok := fieldName(b)
			if !ok {
				return
			}
			n := fieldLength(b)
			if !yield(field{name, b[:n:n]}) {
				return
			}
			b = b[n:]
		}
	}
}

// fieldName reads the name at the start of a field. White space before the
// colon is obsolete but in use (RFC 5322 §4.5).
func fieldName(b []byte) ([]byte, bool) {
	i := 0
	for i < len(b) && b[i] > ' ' && b[i] < 0x7f && b[i] != ':' {
		i++
	}
	rest := bytes.TrimLeft(b[i:], " \t")
	if i == 0 || len(rest) == 0 || rest[0] != ':' {
		return nil, false
	}
	return b[:i], true
}

// fieldLength counts a field's octets up to the line end that no white space
// follows.
func fieldLength(b []byte) int {
	n := 0
	for {
		lf := bytes.IndexByte(b[n:], '\n')
		if lf < 0 {
			return len(b)
		}
		n += lf + 1
		if n == len(b) || b[n] != ' ' && b[n] != '\t' {
			return n
		}
	}
}

// header is what the relay needs to know of a header section.
type header struct {
	messageID string // with < >; "" if the field is missing
	hasID     bool
	hasDate   bool
	received  int
	smtpAPI   *field   // the first
	keep      [][]byte // the section without X-SMTPAPI, in runs
	rest      []byte   // from the first line that belongs to no field on
}

func parseHeader(b []byte) header {
	var h header
	at, from := 0, 0
	for f := range fields(b) {
		end := at + len(f.raw)
		switch {
		case f.is("Received"):
			h.received++
		case f.is("Date"):
			h.hasDate = true
		case f.is("Message-ID") && !h.hasID:
			h.hasID, h.messageID = true, f.value()
		case f.is("X-SMTPAPI"):
			if h.smtpAPI == nil {
				first := f // not f itself, which would be on the heap each time
				h.smtpAPI = &first
			}
			if at > from {
				h.keep = append(h.keep, b[from:at])
			}
			from = end
		}
		at = end
	}
	if at > from {
		h.keep = append(h.keep, b[from:at])
	}
	h.rest = b[at:]
	return h
}
