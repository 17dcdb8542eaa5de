package relay

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for _, c := range []struct {
		in                string
		utf8              bool
		out, dest, inASCI string // "": the same as in; the domain; the same as out
	}{
		{in: "user@example.com", dest: "example.com"},
		{in: "User+Tag@Example.COM", dest: "example.com", inASCI: "User+Tag@example.com"},
		{in: "a.b@example.com", dest: "example.com"},
		{in: "!#$%&'*+-/=?^_`{|}~@example.com", dest: "example.com"},
		{in: `"john doe"@example.com`, dest: "example.com"},
		{in: `"a@b"@example.com`, dest: "example.com"},
		{in: `"a\"b\\c"@example.com`, dest: "example.com"},
		{in: `"plain"@example.com`, out: "plain@example.com", dest: "example.com"},
		{in: `"a\b"@example.com`, out: "ab@example.com", dest: "example.com"},
		{in: `"a..b"@example.com`, dest: "example.com"},
		{in: `"victim@evil.test> NOTIFY=NEVER "@ok.test`, dest: "ok.test"},
		{in: "user@[192.0.2.1]", dest: "[192.0.2.1]"},
		{in: "user@[IPv6:2001:DB8::1]", dest: "[2001:db8::1]"},
		{in: "user@bücher.example", utf8: true, dest: "xn--bcher-kva.example", inASCI: "user@xn--bcher-kva.example"},
		{in: "jürgen@bücher.example", utf8: true, dest: "xn--bcher-kva.example", inASCI: "-"},
		{in: strings.Repeat("a", 242) + "@example.com", dest: "example.com"},
		{in: "a@example.com.", out: "a@example.com", dest: "example.com"},
		{in: "a@Bücher.example.", utf8: true, out: "a@Bücher.example", dest: "xn--bcher-kva.example", inASCI: "a@xn--bcher-kva.example"},
		{in: "@relay.test:user@example.com", out: "user@example.com", dest: "example.com"},
		{in: `@a.test,@b.test,@[192.0.2.1],@[IPv6:2001:db8::1]:"a@b:c"@example.com.`, out: `"a@b:c"@example.com`, dest: "example.com"},
		{in: "@" + strings.Repeat("a.", 100) + "test:" + strings.Repeat("a", 242) + "@example.com", out: strings.Repeat("a", 242) + "@example.com", dest: "example.com"},
	} {
		a, err := ParseAddress(c.in, c.utf8)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		if c.out == "" {
			c.out = c.in
		}
		if a.String() != c.out || a.Destination() != c.dest {
			t.Errorf("%q: %q to %q; want %q to %q", c.in, a, a.Destination(), c.out, c.dest)
		}
		ascii, ok := a.ASCII()
		if c.inASCI == "-" {
			if ok || !a.NeedsUTF8() {
				t.Errorf("%q: ASCII form %q", c.in, ascii)
			}
			continue
		}
		if c.inASCI == "" {
			c.inASCI = c.out
		}
		if !ok || ascii != c.inASCI || a.NeedsUTF8() {
			t.Errorf("%q: ASCII form %q, %v; want %q", c.in, ascii, ok, c.inASCI)
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for _, c := range []struct {
		in   string
		utf8 bool
		want error
	}{
		{"", false, ErrAddressSyntax},
		{"user", false, ErrAddressSyntax},
		{"@example.com", false, ErrAddressSyntax},
		{"user@", false, ErrAddressSyntax},
		{"@relay.test:", false, ErrAddressSyntax},
		{"@relay.test:@example.com", false, ErrAddressSyntax},
		{"@relay.test:user", false, ErrAddressSyntax},
		{"@relay.test,user@example.com", false, ErrAddressSyntax},
		{"@relay.test,:user@example.com", false, ErrAddressSyntax},
		{"@relay..test:user@example.com", false, ErrAddressSyntax},
		{"@[192.0.2.1]user@example.com", false, ErrAddressSyntax},
		{"@[192.0.2.1:user@example.com", false, ErrAddressSyntax},
		{"@:user@example.com", false, ErrAddressSyntax},
		{"@a.test:@b.test:user@example.com", false, ErrAddressSyntax},
		{"a b@example.com", false, ErrAddressSyntax},
		{"a..b@example.com", false, ErrAddressSyntax},
		{".a@example.com", false, ErrAddressSyntax},
		{"a.@example.com", false, ErrAddressSyntax},
		{"a@b@example.com", false, ErrAddressSyntax},
		{"a@x..y", false, ErrAddressSyntax},
		{"a@example.com..", false, ErrAddressSyntax},
		{"a@.", false, ErrAddressSyntax},
		{"a@[192.0.2.1].", false, ErrAddressSyntax},
		{"a@192.0.2.1", false, ErrAddressSyntax},
		{"a@[192.0.2.1", false, ErrAddressSyntax},
		{"a@[2001:db8::1]", false, ErrAddressSyntax},
		{"a@[IPv6:192.0.2.1]", false, ErrAddressSyntax},
		{"a@[IPv6:fe80::1%eth0]", false, ErrAddressSyntax},
		{`""@example.com`, false, ErrAddressSyntax},
		{`"a@example.com`, false, ErrAddressSyntax},
		{`"a"b"@example.com`, false, ErrAddressSyntax},
		{`"a\"@example.com`, false, ErrAddressSyntax},
		{"\"a\r\nb\"@example.com", false, ErrAddressSyntax},
		{"\"a\x00\"@example.com", false, ErrAddressSyntax},
		{"a\x7f@example.com", false, ErrAddressSyntax},
		{"\"a\u0085\"@example.com", true, ErrAddressSyntax},
		{"a\xff@example.com", true, ErrAddressSyntax},
		{"jürgen@example.com", false, ErrAddressUTF8},
		{"user@bücher.example", false, ErrAddressUTF8},
		{strings.Repeat("a", 243) + "@example.com", false, ErrAddressLength},
		{"a@" + strings.Repeat("b.", 130) + "test", false, ErrAddressLength},
	} {
		if a, err := ParseAddress(c.in, c.utf8); !errors.Is(err, c.want) {
			t.Errorf("%q: %q, %v; want %v", c.in, a, err, c.want)
		}
	}
}

func TestNullAddress(t *testing.T) {
	var a Address
	if ascii, ok := a.ASCII(); !a.IsNull() || a.String() != "" || ascii != "" || !ok {
		t.Errorf("null sender: %q", a)
	}
	b, err := json.Marshal(a)
	if err != nil || string(b) != `""` {
		t.Errorf("%s, %v", b, err)
	}
	if err := json.Unmarshal(b, &a); err != nil || !a.IsNull() {
		t.Errorf("%q, %v", a, err)
	}
}

func TestLiteralAddress(t *testing.T) {
	a, err := ParseAddress("user@[IPv6:2001:db8::1]", false)
	if err != nil || !a.IsLiteral() || a.Literal() != netip.MustParseAddr("2001:db8::1") || !a.Domain().IsZero() {
		t.Errorf("%+v, %v", a, err)
	}
}

// FuzzParseAddress holds every address to this: its written form parses to
// the same address, and nothing in it can leave the path it stands in, which
// is how a local part once became a parameter (RCPT TO:<...> NOTIFY=NEVER).
func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"user@example.com", `"a b"@example.com`, `"victim@evil.test> NOTIFY=NEVER "@ok.test`, `"\""@a.test`,
		"jürgen@bücher.example", "user@[192.0.2.1]", "user@[IPv6:2001:db8::1]", "a@b@c", "\"a\\", "@a:b@c",
		"@a.test,@[IPv6:::1]:b@c.", "@[]:b@c", "@a,", "@[",
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, s string, smtputf8 bool) {
		a, err := ParseAddress(s, smtputf8)
		if err != nil {
			return
		}
		if a.IsNull() || a.Destination() == "" {
			t.Fatalf("%q parsed to nothing", s)
		}
		written := a.String()
		if !insidePath(written) {
			t.Errorf("%q is written %q, which leaves its path", s, written)
		}
		if ascii, ok := a.ASCII(); ok && !(insidePath(ascii) && isASCII(ascii)) {
			t.Errorf("%q is written %q in ASCII", s, ascii)
		}
		if !smtputf8 && !isASCII(written) {
			t.Errorf("%q is written %q without SMTPUTF8", s, written)
		}
		// Quoting may lengthen an address beyond what one may be read with.
		again, err := ParseAddress(written, smtputf8)
		if err == nil && (again != a) || err != nil && !errors.Is(err, ErrAddressLength) {
			t.Errorf("%q gave %q, and that %+v, %v", s, written, again, err)
		}
	})
}

// insidePath reports whether s cannot end the <path> it stands in: no control
// octets, and > and space only inside a quoted local part.
func insidePath(s string) bool {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < ' ' || c == 0x7f:
			return false
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '>' || c == '<' || c == ' '):
			return false
		}
	}
	return !quoted
}
