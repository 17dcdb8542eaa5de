package content

import "bytes"

// newlines makes CRLF the only line end of content. A CR or an LF that stands
// alone is a line end to some receivers and not to others, which is what
// smuggling is made of (RFC 5321 §2.3.8). So a bare LF becomes CRLF, CRs in
// front of a line end go, and any other CR becomes a blank. An octet becomes
// two at most, and only as part of a line end.
//
// What needs no mending, which is nearly everything, is looked at in bulk and
// passed on as it lies.
type newlines struct {
	crs int64 // CRs that are held back until the octet after them tells what they are

	bareCR, bareLF bool // found, and mended
}

var (
	lineEnd        = []byte("\r\n")
	carriageReturn = []byte{'\r'}
	blanks         = bytes.Repeat([]byte{' '}, 512)
)

// next passes the next piece to sink, in one part or several, none of them
// empty. A CR and the LF behind it always come in the same part. It writes to b.
func (n *newlines) next(b []byte, sink func([]byte)) {
	b = n.resolve(b, sink)
	text := bytes.TrimRight(b, "\r")
	n.crs += int64(len(b) - len(text))
	switch {
	case len(text) == 0:
	case inOrder(text):
		sink(text)
	default:
		n.mend(text, sink)
	}
}

// end is called after the last piece.
func (n *newlines) end(sink func([]byte)) { n.blank(sink) }

// resolve decides about the CRs that are held back, and gives what is left of b.
func (n *newlines) resolve(b []byte, sink func([]byte)) []byte {
	if n.crs == 0 || len(b) == 0 {
		return b
	}
	rest := bytes.TrimLeft(b, "\r")
	n.crs += int64(len(b) - len(rest))
	switch {
	case len(rest) == 0:
	case rest[0] == '\n':
		n.bareCR = n.bareCR || n.crs > 1
		n.crs = 0
		sink(lineEnd)
		return rest[1:]
	default:
		n.blank(sink)
	}
	return rest
}

// blank writes as many blanks as CRs are held back.
func (n *newlines) blank(sink func([]byte)) {
	n.bareCR = n.bareCR || n.crs > 0
	for n.crs > 0 {
		part := min(n.crs, int64(len(blanks)))
		sink(blanks[:part])
		n.crs -= part
	}
}

// inOrder reports whether CR and LF stand in b as CRLF only.
func inOrder(b []byte) bool {
	lines := 0
	for i := 0; ; i++ {
		lf := bytes.IndexByte(b[i:], '\n')
		if lf < 0 {
			break
		}
		if i += lf; i == 0 || b[i-1] != '\r' {
			return false
		}
		lines++
	}
	// Where every line feed follows a CR, a CR too many stands alone.
	return bytes.Count(b, carriageReturn) == lines
}

// mend passes on b, which does not end in CR, line by line.
func (n *newlines) mend(b []byte, sink func([]byte)) {
	for len(b) > 0 {
		line, rest, ended := bytes.Cut(b, lineEnd[1:])
		text := line
		if ended {
			text = bytes.TrimRight(line, "\r")
		}
		n.bareCR = blankOut(text) || n.bareCR || len(line)-len(text) > 1
		if ended && len(line)-len(text) == 1 {
			text, ended = b[:len(line)+1], false // as it lies
		}
		if len(text) > 0 {
			sink(text)
		}
		if ended {
			n.bareLF = n.bareLF || len(line) == len(text)
			sink(lineEnd)
		}
		b = rest
	}
}

// blankOut makes every CR in b a blank, and reports whether there was one.
func blankOut(b []byte) (found bool) {
	for {
		i := bytes.IndexByte(b, '\r')
		if i < 0 {
			return found
		}
		b[i] = ' '
		b, found = b[i+1:], true
	}
}
