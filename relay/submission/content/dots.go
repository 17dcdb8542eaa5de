package content

import "bytes"

// Undot removes the dot-stuffing of DATA (RFC 5321 §4.5.2), and copies nothing.
// Only CRLF "." CRLF ends the content; whatever else looks like it is content.
// The zero value is ready for the first octet.
//
// Behind a bare LF a dot is stuffing only if another dot follows. A client that
// stuffs there never sends a single dot, and a client that does not stuff there
// means the dot that it sends.
type Undot struct {
	at      place
	cr, cr2 bool // the last octet was CR, and the one before it
	// Doubtful tells that the end stood behind CR CR LF. Some servers take that
	// for a line end and some do not, so they disagree about the end.
	Doubtful bool
}

// place is where the next octet stands.
type place uint8

const (
	atLine     place = iota // at the start, or behind CRLF
	atDoubtful              // behind CR CR LF
	atBare                  // behind a bare LF
	atDot                   // behind a bare LF and a dot
	midLine
)

// Next passes the content in w to sink. It returns how many octets of w are used,
// and whether the end was among them. Without the end it leaves two octets at
// most: they may be the start of the end. They come first in the next w.
func (u *Undot) Next(w []byte, sink func([]byte)) (used int, end bool) {
	emit := func(b []byte) {
		if len(b) > 0 {
			sink(b)
		}
	}
	from, i := 0, 0 // content not yet emitted; where a line begins or goes on
	for i < len(w) {
		if u.at != midLine && w[i] == '.' {
			if u.at == atBare {
				u.at = atDot
				i++
				continue
			}
			rest := w[i:]
			if u.at != atDot && len(rest) < 3 && bytes.HasPrefix(EndOfData, rest) {
				emit(w[from:i])
				return i, false
			}
			emit(w[from:i])
			if u.at != atDot && bytes.HasPrefix(rest, EndOfData) {
				u.Doubtful = u.at == atDoubtful
				return i + len(EndOfData), true
			}
			i++
			from, u.cr, u.cr2 = i, false, false
		}
		lf := bytes.IndexByte(w[i:], '\n')
		if lf < 0 {
			u.at = midLine
			break
		}
		i += lf
		if i-from >= 2 && w[i-1] == '\r' && w[i-2] != '\r' {
			u.at = atLine // as nearly always
		} else {
			u.look(w[from:i])
			u.at = u.behindLF()
		}
		i++
	}
	emit(w[from:])
	u.look(w[from:])
	return len(w), false
}

// look notes how b ends. b begins where the last piece ended.
func (u *Undot) look(b []byte) {
	switch n := len(b); {
	case n > 1:
		u.cr, u.cr2 = b[n-1] == '\r', b[n-2] == '\r'
	case n == 1:
		u.cr, u.cr2 = b[0] == '\r', u.cr
	}
}

// behindLF is where the octet after a line feed stands.
func (u *Undot) behindLF() place {
	switch {
	case !u.cr:
		return atBare
	case u.cr2:
		return atDoubtful
	}
	return atLine
}

// EndOfData is the line that ends the content of DATA (RFC 5321 §4.1.1.4).
var EndOfData = []byte(".\r\n")
