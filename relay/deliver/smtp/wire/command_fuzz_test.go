package wire

import (
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"tlsrelay/relay"
)

// FuzzCommands writes MAIL and RCPT from what a client may have given. Each is one
// line of ASCII, whose parameters are those that were asked for and read back as
// they were given, so that no octet of a client becomes a command or a parameter.
func FuzzCommands(f *testing.F) {
	for _, s := range []string{"id", "a+b=c", "a b\r\nRCPT TO:<x@y.example>", "\x00\x7f\xff", "j\u00fcrgen\\x{41}", "", "\ufffd\U0010ffff", "victim@a.example NOTIFY=NEVER"} {
		f.Add("user@a.example", s, s, true, uint8(7))
		f.Add(`"a> NOTIFY=NEVER "@a.example`, s, s, false, uint8(8))
	}
	f.Add("j\u00fcrgen@b\u00fccher.example", "", "x", true, uint8(1))
	f.Fuzz(func(t *testing.T, to, envid, original string, isUTF8 bool, notify uint8) {
		address, err := relay.ParseAddress(to, true)
		path, writable := address.ASCII()
		if err != nil || !writable {
			return
		}
		m := relay.Message{From: address, EnvelopeID: envid, Return: relay.ReturnHeaders, RequireTLS: true, EightBit: true}
		r := relay.Recipient{Address: address, Original: original, OriginalType: "rfc822", Notify: relay.Notify(notify & 15)}
		if isUTF8 {
			r.OriginalType = "utf-8"
		}
		x := Extensions{DSN: true, Size: true, EightBit: true, RequireTLS: true, UTF8: true}
		mail := parametersOf(t, x.AppendMail(nil, &m, 42, true), "MAIL FROM:<"+path+">")
		if mail["SIZE"] != "42" || mail["BODY"] != "8BITMIME" || mail["RET"] != "HDRS" || unxtext(t, mail["ENVID"]) != envid {
			t.Fatalf("ENVID %q gives %v", envid, mail)
		}
		rcpt := parametersOf(t, x.AppendRcpt(nil, &r), "RCPT TO:<"+path+">")
		kind, value, _ := strings.Cut(rcpt["ORCPT"], ";")
		switch {
		case kind == "utf-8":
			if got := fromUnicode(t, value); got != original && utf8.ValidString(original) {
				t.Fatalf("ORCPT %q gives %q", original, got)
			}
		case kind == "rfc822" && unxtext(t, value) != original:
			t.Fatalf("ORCPT %q gives %q", original, value)
		}
		for name := range rcpt {
			if name != "ORCPT" && name != "NOTIFY" {
				t.Fatalf("%q gives the parameter %s", original, name)
			}
		}
	})
}

// parametersOf splits a command behind its path as a host does (RFC 5321 §4.1.2).
func parametersOf(t *testing.T, line []byte, verb string) map[string]string {
	rest, ok := strings.CutPrefix(string(line), verb)
	rest, whole := strings.CutSuffix(rest, "\r\n")
	if !ok || !whole || strings.ContainsFunc(rest, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Fatalf("%q is no command", line)
	}
	given := make(map[string]string)
	for _, p := range strings.Fields(rest) {
		name, value, _ := strings.Cut(p, "=")
		if _, twice := given[name]; twice || strings.Contains(value, "=") {
			t.Fatalf("%q has %q", line, p)
		}
		given[name] = value
	}
	return given
}

var (
	xtext        = regexp.MustCompile(`\+..`)
	unicodeXtext = regexp.MustCompile(`\\x\{([0-9A-F]{2,6})\}`)
)

// unxtext reads xtext (RFC 3461 §4).
func unxtext(t *testing.T, s string) string {
	return xtext.ReplaceAllStringFunc(s, func(x string) string {
		b, err := hex.DecodeString(x[1:])
		if err != nil || strings.ToUpper(x) != x {
			t.Fatalf("%q is no xtext", s)
		}
		return string(b)
	})
}

// fromUnicode reads the 7-bit form of RFC 6533 §3.
func fromUnicode(t *testing.T, s string) string {
	return unicodeXtext.ReplaceAllStringFunc(s, func(x string) string {
		n, err := strconv.ParseUint(x[3:len(x)-1], 16, 32)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		return string(rune(n))
	})
}
