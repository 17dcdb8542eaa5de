package events

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Hidden reports whether a character may not be in text of a stranger that is shown in a
// log, a terminal, a page or a report. These are control characters (category Cc),
// characters that reorder, join or hide their neighbours (Cf, and the block of tags), and
// those that end lines (Zl, Zp).
func Hidden(r rune) bool {
	if r < utf8.RuneSelf {
		return r < ' ' || r == 0x7f
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) || 0xe0000 <= r && r <= 0xe007f
}

// Printable returns text of a stranger as one line that is safe to show, with a blank for
// each tab and line end, and "?" for each other hidden character and each octet that is
// not UTF-8. No other function cleans such text.
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

// replacement returns what replaces a decoded rune of n octets; 0: the rune may stay.
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

// Clip returns the first n octets of s, or a little less: it cuts no character in two.
func Clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	// Text that is not UTF-8 may have no start of a character at all.
	for i := n; i >= 0 && i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i]
		}
	}
	return s[:n]
}
