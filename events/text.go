package events

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Hidden tells the characters that no text of a stranger may bring into a log,
// a terminal, a page or a report: those that are obeyed there (category Cc),
// that reorder, join or hide what stands beside them (Cf, and the block of tags
// that is made of them), and that end lines (Zl, Zp).
func Hidden(r rune) bool {
	if r < utf8.RuneSelf {
		return r < ' ' || r == 0x7f
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) || 0xe0000 <= r && r <= 0xe007f
}

// Printable gives text of a stranger as one line that is safe to show: a blank
// for each tab and line end, "?" for every other hidden character and for each
// octet that is not UTF-8. It is the one place where such text is cleaned; what
// has nothing to clean is returned as it is.
func Printable(s string) string {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f {
			return printable(s, i)
		}
	}
	return s
}

// printable is Printable for text whose first i octets are clean.
func printable(s string, i int) string {
	var b strings.Builder
	done := 0 // of s, in b
	for i < len(s) {
		r, n := utf8.DecodeRuneInString(s[i:])
		if with := replacement(r, n); with != 0 {
			b.WriteString(s[done:i])
			b.WriteByte(with)
			done = i + n
		}
		i += n
	}
	if done == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}

// replacement gives what stands in place of a decoded rune of n octets; 0: it
// may stay.
func replacement(r rune, n int) byte {
	switch {
	case r == utf8.RuneError && n == 1:
		return '?'
	case !Hidden(r):
		return 0
	case unicode.IsSpace(r):
		return ' '
	}
	return '?'
}

// Clip gives at most the first n octets of s, and no part of a character.
func Clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	// Not further back than a character is long: what is no UTF-8 has no start.
	for i := n; i >= 0 && i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i]
		}
	}
	return s[:n]
}
