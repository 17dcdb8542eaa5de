package content

import "bytes"

// newlines makes CRLF the only line end of content. Some receivers take a bare CR
// or a bare LF for a line end and others do not (RFC 5321 §2.3.8); a smuggled
// message hides in that difference. So a bare LF becomes CRLF, extra CRs before a
// line end are removed, and any other CR becomes a blank. An octet becomes two at
// most, and only as part of a line end.
//
// Nearly all content is in order. It is checked in bulk and passed on in place.
type newlines struct {
	crs int64 // CRs at the end of the last piece; the octet behind them tells what they are

	bareCR, bareLF bool // there was one
}

var (
	lineEnd        = []byte("\r\n")
	carriageReturn = []byte{'\r'}
	blanks         = bytes.Repeat([]byte{' '}, 512)
)

// next passes the next piece to sink, in one part or several. No part is empty,
// and none ends between a CR and its LF. next writes to b.
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

// resolve decides about the CRs of the last piece, and returns the rest of b.
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

// blank passes on a blank for each CR of the last piece.
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
	// Every LF follows a CR, so one more CR would stand alone.
	return bytes.Count(b, carriageReturn) == lines
}

// mend passes b on line by line. b does not end in CR.
func (n *newlines) mend(b []byte, sink func([]byte)) {
	for len(b) > 0 {
		line, rest, ended := bytes.Cut(b, lineEnd[1:])
		text := line
		if ended {
			text = bytes.TrimRight(line, "\r")
		}
		n.bareCR = blankOut(text) || n.bareCR || len(line)-len(text) > 1
		if ended && len(line)-len(text) == 1 {
			text, ended = b[:len(line)+1], false // in place
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
