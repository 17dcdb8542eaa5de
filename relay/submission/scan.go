package submission

import (
	"bytes"
	"encoding/binary"
)

// scan looks at content for what must not be in it and for octets above 127.
// A bare CR or LF is a line end to some receivers and not to others, which is
// what smuggling is made of (RFC 5321 §2.3.8); NUL is forbidden by §4.5.2 of
// RFC 5321 together with RFC 5322 §4.
type scan struct {
	cr       bool // the last octet was CR
	eightBit bool

	bareCR, bareLF, nul bool // found
}

// Words of refusal, as they stand in the reply.
const (
	bareCRWords = "Bare CR is not allowed in a message"
	bareLFWords = "Bare LF is not allowed in a message"
	nulWords    = "NUL is not allowed in a message"
)

// next looks at the next piece.
func (s *scan) next(b []byte) {
	if len(b) == 0 {
		return
	}
	s.nul = s.nul || bytes.IndexByte(b, 0) >= 0
	s.eightBit = s.eightBit || hasEightBit(b)
	if s.cr {
		s.cr = false
		if b[0] != '\n' {
			s.bareCR = true
		} else if b = b[1:]; len(b) == 0 {
			return
		}
	}
	// Where every line feed follows a CR, a CR too many stands alone.
	lines := 0
	for i := 0; ; {
		lf := bytes.IndexByte(b[i:], '\n')
		if lf < 0 {
			break
		}
		i += lf
		if i > 0 && b[i-1] == '\r' {
			lines++
		} else {
			s.bareLF = true
		}
		i++
	}
	s.cr = b[len(b)-1] == '\r'
	if s.cr {
		lines++ // or not, as the next piece will show
	}
	s.bareCR = s.bareCR || bytes.Count(b, carriageReturn) > lines
}

var carriageReturn = []byte{'\r'}

// end is called after the last piece.
func (s *scan) end() {
	s.bareCR = s.bareCR || s.cr
}

// fault says what is wrong with what was seen so far, "" if nothing. A bare CR
// comes first, for it means the most.
func (s *scan) fault() string {
	switch {
	case s.bareCR:
		return bareCRWords
	case s.bareLF:
		return bareLFWords
	case s.nul:
		return nulWords
	}
	return ""
}

func hasEightBit(b []byte) bool {
	const high = 0x8080808080808080
	for len(b) >= 32 {
		if (word(b)|word(b[8:])|word(b[16:])|word(b[24:]))&high != 0 {
			return true
		}
		b = b[32:]
	}
	for _, c := range b {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

// word reads eight octets, in whatever order.
func word(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
