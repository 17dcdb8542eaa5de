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
}

// Words of refusal, as they stand in the reply.
const (
	bareCR = "Bare CR is not allowed in a message"
	bareLF = "Bare LF is not allowed in a message"
	nul    = "NUL is not allowed in a message"
)

// next looks at the next piece, and says what is wrong with it, "" if nothing.
func (s *scan) next(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return nul
	}
	if !s.eightBit {
		s.eightBit = hasEightBit(b)
	}
	if s.cr {
		if b[0] != '\n' {
			return bareCR
		}
		b = b[1:]
	}
	s.cr = false
	for len(b) > 0 {
		lf := bytes.IndexByte(b, '\n')
		line := b
		if lf >= 0 {
			line = b[:lf]
		}
		cr := bytes.IndexByte(line, '\r')
		switch {
		case lf < 0:
			if cr >= 0 && cr != len(line)-1 {
				return bareCR
			}
			s.cr = cr >= 0
			return ""
		case cr < 0:
			return bareLF
		case cr != len(line)-1:
			return bareCR
		}
		b = b[lf+1:]
	}
	return ""
}

// end is called after the last piece.
func (s *scan) end() string {
	if s.cr {
		return bareCR
	}
	return ""
}

func hasEightBit(b []byte) bool {
	const high = 0x8080808080808080
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b)&high != 0 {
			return true
		}
		b = b[8:]
	}
	for _, c := range b {
		if c >= 0x80 {
			return true
		}
	}
	return false
}
