package jsonobject

import "unicode/utf8"

const hexDigits = "0123456789abcdef"

// AppendString appends s as a JSON string.
func AppendString(dst []byte, s string) []byte {
	return append(AppendEscaped(append(dst, '"'), s), '"')
}

// AppendEscaped appends the inside of a JSON string, with the escapes of the Go encoder.
// Besides what RFC 8259 §7 demands these are < > & (for JSON inside HTML), U+2028 and
// U+2029 (for JSON inside JavaScript), and U+FFFD in place of octets that are not UTF-8.
func AppendEscaped(dst []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			dst = appendEscape(append(dst, s[start:i]...), c)
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if esc := runeEscape(r, n); esc != "" {
			dst = append(append(dst, s[start:i]...), esc...)
			start = i + n
		}
		i += n
	}
	return append(dst, s[start:]...)
}

// AppendRaw appends valid JSON without white space between its tokens,
// escaped as AppendString does.
func AppendRaw(dst []byte, raw []byte) []byte {
	inString := false
	start := 0
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case inString && c == '\\':
			i++ // an escaped quote does not end the string
		case c == '"':
			inString = !inString
		case !inString && (c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			dst = appendEscapedRaw(dst, raw[start:i])
			start = i + 1
		}
	}
	return appendEscapedRaw(dst, raw[start:])
}

// appendEscapedRaw appends a piece of valid JSON, and escapes characters that valid JSON
// may have as they are.
func appendEscapedRaw(dst, raw []byte) []byte {
	start := 0
	for i := 0; i < len(raw); {
		switch c := raw[i]; {
		case c == '<' || c == '>' || c == '&':
			dst = appendEscape(append(dst, raw[start:i]...), c)
			i++
			start = i
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(raw[i:])
			if esc := runeEscape(r, n); esc != "" {
				dst = append(append(dst, raw[start:i]...), esc...)
				start = i + n
			}
			i += n
		}
	}
	return append(dst, raw[start:]...)
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

// runeEscape returns the escape of a decoded rune of n octets, "" if it needs none.
func runeEscape(r rune, n int) string {
	switch {
	case r == utf8.RuneError && n == 1:
		return `\ufffd`
	case r == '\u2028':
		return `\u2028`
	case r == '\u2029':
		return `\u2029`
	}
	return ""
}

// plain marks the bytes that stand for themselves.
var plain = func() (p [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		p[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return p
}()
