package content

import (
	"bytes"
	"iter"
	"strings"
)

const (
	// maxHeader is the longest header section, in octets: it is kept in memory.
	maxHeader = 1 << 20
	// maxReceived is how many Received fields a message may have before it is
	// taken for one in a loop (RFC 5321 §6.3).
	maxReceived = 50
)

// field is a header field.
type field struct {
	name []byte // as written
	raw  []byte // all of it, with folded lines and the last line end
}

func (f field) is(name string) bool { return bytes.EqualFold(f.name, []byte(name)) }

// value is the body of the field, unfolded (RFC 5322 §2.2.3).
func (f field) value() string {
	_, body, _ := bytes.Cut(f.raw, []byte(":"))
	body = bytes.ReplaceAll(body, []byte("\r\n"), nil)
	return strings.TrimSpace(string(body))
}

// headerEnd finds the end of the header section in b: behind the line end of the
// last field, before the empty line. It does not look before the offset from.
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

// fields yields the fields of a header section, in order. A line that belongs to
// no field is yielded as a field without a name.
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

// mboxLines counts the octets of the "From " lines, plain or quoted, that a header
// section begins with. They belong to an mbox file (RFC 4155) and not to the
// message.
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

// fieldName reads the name at the start of a field. It allows white space before
// the colon, which is obsolete and still in use (RFC 5322 §4.5).
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

// fieldLength counts the octets of a field: it ends with the first line that no
// white space follows.
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

// header is what the Rewriter needs to know of a header section.
type header struct {
	messageID string // the body of Message-ID; "" if the field is missing
	hasID     bool
	hasDate   bool
	received  int
	smtpAPI   *field   // the first
	keep      [][]byte // the section without X-SMTPAPI and rest, in runs
	rest      []byte   // the lines at its end that belong to no field
}

// parseHeader reads a header section. A line that is no field stays where it is
// if fields follow: readers skip such a line and read on. If no field follows, the
// body has begun without its empty line. The same is true if the first line is a
// continuation: left in place, it would continue a field of ours.
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
