package content

import (
	"bytes"
	"encoding/binary"
)

// scan looks at content whose line ends are in order. It looks for octets above
// 127, and for a line that ends no message here and may end one at the next
// server. That is a line of NULs and one dot. NUL is content (RFC 5322 §4 calls it
// obsolete), but some servers remove it, and what is left ends DATA. Dot-stuffing
// does not help, because the line begins with NUL.
type scan struct {
	eightBit bool
	endLike  bool // that line was found
	in       nulLine
}

// nulLine is what the line so far consists of.
type nulLine uint8

const (
	lineStart nulLine = iota
	onlyNULs
	nulsAndDot
	otherLine
)

// next looks at the next piece, in which LF follows every CR.
func (s *scan) next(b []byte) {
	s.eightBit = s.eightBit || hasEightBit(b)
	switch {
	case len(b) == 0:
	case s.in != onlyNULs && s.in != nulsAndDot && bytes.IndexByte(b, 0) < 0:
		s.in = otherLine
		if b[len(b)-1] == '\n' {
			s.in = lineStart
		}
	default:
		for _, c := range b {
			s.step(c)
		}
	}
}

func (s *scan) step(c byte) {
	switch {
	case c == '\n':
		s.in = lineStart
	case c == 0 && s.in == lineStart:
		s.in = onlyNULs
	case c == 0:
	case c == '.' && s.in == onlyNULs:
		s.in = nulsAndDot
	default:
		s.endLike = s.endLike || c == '\r' && s.in == nulsAndDot
		s.in = otherLine
	}
}

// end is called after the last piece. If that has no line end, the Rewriter adds
// one.
func (s *scan) end() { s.endLike = s.endLike || s.in == nulsAndDot }

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

// word reads eight octets; their order does not matter.
func word(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
