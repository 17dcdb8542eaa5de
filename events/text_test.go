package events

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                           "",
		"250 2.0.0 Ok: queued as 4X": "250 2.0.0 Ok: queued as 4X",
		"two\r\nlines\tand a tab":    "two  lines and a tab",
		"\x1b]0;owned\x07\x1b[2J":    "?]0;owned??[2J",
		"nul\x00del\x7fnel\u0085":    "nul?del?nel ",
		"abc\u202etxt.exe\u202c":     "abc?txt.exe?",         // right-to-left override and its end
		"pay\u200bpal \ufeffx\u2066": "pay?pal ?x?",          // zero width space, byte order mark, isolate
		"a\u2028b\u2029c\u00add":     "a b c?d",              // line and paragraph separator, soft hyphen
		"tag\U000e0041\U000e007f.":   "tag??.",               // text in tags, which nobody sees
		"\U000e0000\U000e0001":       "??",                   // the unassigned ones among them
		"bad\xff\xc3(\xe2\x80":       "bad??(??",             // not UTF-8
		"Grüße, 世界 🎉 a\u00a0b":       "Grüße, 世界 🎉 a\u00a0b", // is left alone
		"kept\ufffd":                 "kept\ufffd",
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// The categories are the rule, whatever Unicode adds to them.
func TestHiddenCategories(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		listed := unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
		if tag := 0xe0000 <= r && r <= 0xe007f; Hidden(r) != (listed || tag) {
			t.Errorf("%U: %t", r, Hidden(r))
		}
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{
		{"short", 10, "short"}, {"exactly", 7, "exactly"}, {"longer", 4, "long"},
		{"aé", 2, "a"}, {"a世", 3, "a"}, {"a🎉b", 4, "a"}, {"a🎉b", 5, "a🎉"}, {"é", 1, ""}, {"é", 0, ""},
		{strings.Repeat("\x80", 20), 10, strings.Repeat("\x80", 10)}, // no UTF-8 at all
	} {
		if got := Clip(c.in, c.n); got != c.want {
			t.Errorf("%q to %d: %q, want %q", c.in, c.n, got, c.want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("250 ok", 3)
	f.Add("\x1b[2J\u202e\xff", 4)
	f.Fuzz(func(t *testing.T, s string, n int) {
		got := Printable(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, Hidden) {
			t.Errorf("%q gave %q", s, got)
		}
		if again := Printable(got); again != got {
			t.Errorf("%q, cleaned twice, %q", got, again)
		}
		if n >= 0 {
			if c := Clip(got, n); len(c) > n || !strings.HasPrefix(got, c) || !utf8.ValidString(c) {
				t.Errorf("%q clipped to %d: %q", got, n, c)
			}
		}
	})
}

// A reply of every delivered message passes here.
func TestPrintableCostsNothing(t *testing.T) {
	ascii, other := "2.0.0 Ok: queued as 4XyzAb12", "Grüße aus Köln"
	if n := testing.AllocsPerRun(100, func() { Printable(ascii); Printable(other) }); n != 0 {
		t.Errorf("%v allocations for clean text", n)
	}
}
