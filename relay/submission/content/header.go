package content

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

// fields yields the fields of a header section, in order. A line that belongs
// to no field comes as one without a name, so that all of b is yielded.
func fields(b []byte) iter.Seq[field] {
	return func(yield func(field) bool) {
		for len(b) > 0 {
			name, _ := fieldName(b)
			n := fieldLength(b)
			if !yield(field{name, b[:n:n]}) {
				return
			}
			b = b[n:]
		}
	}
}

// mboxLines counts the octets at the start of a header section that an mbox
// file has before a message: "From " and a date, once or quoted. They belong to
// the file and not to the message (RFC 4155).
func mboxLines(b []byte) int {
	n := 0
	for n < len(b) {
		line := b[n:]
		if _, isField := fieldName(line); isField || !bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte("From ")) {
			break
		}
		lf := bytes.IndexByte(line, '\n')
		if lf < 0 {
			return len(b)
		}
		n += lf + 1
	}
	return n
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
	keep      [][]byte // the section without X-SMTPAPI and rest, in runs
	rest      []byte   // the lines at its end that belong to no field
}

// parseHeader reads a header section. A line that is no field is left where it
// is while fields follow: readers get over it, and what follows is header to
// them. Where none follows the body has begun without its empty line, and so it
// has where the first line is the continuation of nothing: left as it is, it
// would continue a field of ours.
func parseHeader(b []byte) header {
	var h header
	at, from, stray := 0, 0, -1
	for f := range fields(b) {
		end := at + len(f.raw)
		if f.name == nil {
			if stray < 0 {
				stray = at
			}
			if at == 0 && (b[0] == ' ' || b[0] == '\t') {
				break
			}
			at = end
			continue
		}
		stray = -1
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
	if stray >= 0 {
		at = stray
	}
	if at > from {
		h.keep = append(h.keep, b[from:at])
	}
	h.rest = b[at:]
	return h
}
