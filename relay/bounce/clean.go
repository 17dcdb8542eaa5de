package bounce

import (
	"strings"
	"unicode/utf8"

	"tlsrelay/events"
)

const (
	foldAt   = 76   // where a line is folded if it can be (RFC 5322 §2.1.1)
	longWord = 500  // where a word is broken: half of the hard limit of 998
	longText = 1000 // how much of a text is kept
)

// cleaner makes strangers' words fit for a field or a line of ours.
type cleaner struct {
	utf8 bool // the report may hold more than ASCII
}

// text gives s as one line without anything that ends, overwrites or reorders
// it, of bounded length, words apart by single spaces.
func (c cleaner) text(s string) string {
	if len(s) > longText {
		s = events.Clip(s, longText) + "..."
	}
	s = strings.Join(strings.Fields(events.Printable(s)), " ")
	if c.utf8 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return '?'
		}
		return r
	}, s)
}

// token gives s as one word.
func (c cleaner) token(s string) string {
	return strings.ReplaceAll(c.text(s), " ", "_")
}

// fold writes a field, or with another indent any text, over as many lines as
// it takes. first is what the first line begins with.
func fold(first, indent, text string) string {
	var b strings.Builder
	b.WriteString(first)
	col, begun := len(first), false
	for word := range strings.FieldsSeq(text) {
		for word != "" {
			piece := word
			if len(piece) > longWord {
				piece = piece[:runeStart(piece, longWord)]
			}
			word = word[len(piece):]
			switch {
			case begun && col+1+len(piece) > foldAt:
				b.WriteString("\r\n" + indent)
				col = len(indent)
			case begun:
				b.WriteByte(' ')
				col++
			}
			b.WriteString(piece)
			col += len(piece)
			begun = true
		}
	}
	b.WriteString("\r\n")
	return b.String()
}

// runeStart gives the last index, at most i, where a rune of s begins.
func runeStart(s string, i int) int {
	for i > 0 && !utf8.RuneStart(s[i]) {
		i--
	}
	return i
}
