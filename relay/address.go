package relay

import (
	"errors"
	"net/netip"
	"strings"
	"unicode/utf8"

	"tlsrelay/policy/domain"
)

// Address is a checked mailbox of an envelope (RFC 5321 §4.1.2). Its parts are
// kept unquoted, and [Address.String] quotes again where needed, so that no
// octet a sender puts into a local part can end an address early or add a
// parameter to RCPT. The zero Address is the null sender <>.
type Address struct {
	local   string      // unquoted
	domain  domain.Name // zero for a literal and for <postmaster>
	literal netip.Addr  // user@[192.0.2.1]
	given   string      // the domain as the client wrote it, for the wire
}

// Errors of [ParseAddress]; the text is fit for an SMTP reply.
var (
	ErrAddressSyntax = errors.New("malformed address")
	ErrAddressLength = errors.New("address too long")
	ErrAddressUTF8   = errors.New("address needs SMTPUTF8")
)

// Bounds of RFC 5321 §4.5.3.1. That of a path is without the angle brackets; that
// of a local part is the recipients', for senders with VERP or SRS have more.
const (
	maxLocal = 64
	maxPath  = 254
)

// ParseAddress reads local@domain as it stands between < and >, quoted or not.
// Without smtputf8 only ASCII is allowed. A source route is taken off (RFC 5321
// appendix F.2), and so is a dot at the end of the domain.
func ParseAddress(s string, smtputf8 bool) (Address, error) {
	if strings.HasPrefix(s, "@") {
		var ok bool
		if s, ok = behindRoute(s); !ok {
			return Address{}, ErrAddressSyntax
		}
	}
	if len(s) > maxPath {
		return Address{}, ErrAddressLength
	}
	if !utf8.ValidString(s) {
		return Address{}, ErrAddressSyntax
	}
	if !smtputf8 && !isASCII(s) {
		return Address{}, ErrAddressUTF8
	}
	at := strings.LastIndexByte(s, '@')
	if at <= 0 || at == len(s)-1 {
		return Address{}, ErrAddressSyntax
	}
	local, err := parseLocal(s[:at])
	if err != nil {
		return Address{}, err
	}
	return MakeAddress(local, s[at+1:], smtputf8)
}

// MakeAddress builds an address from an unquoted local part and a domain or
// a bracketed address literal. It is for callers whose parser has unquoted
// already, as go-smtp's has.
func MakeAddress(local, host string, smtputf8 bool) (Address, error) {
	if len(local)+1+len(host) > maxPath {
		return Address{}, ErrAddressLength
	}
	if local == "" || !utf8.ValidString(local) || strings.ContainsFunc(local, isControl) {
		return Address{}, ErrAddressSyntax
	}
	if !smtputf8 && !(isASCII(local) && isASCII(host)) {
		return Address{}, ErrAddressUTF8
	}
	a := Address{local: local, given: host}
	if strings.HasPrefix(host, "[") {
		ip, err := parseLiteral(host)
		a.literal = ip
		return a, err
	}
	a.given = strings.TrimSuffix(host, ".") // which RFC 5321 §2.3.5 does not know
	name, err := domain.Parse(a.given)
	if err != nil || strings.HasSuffix(a.given, ".") {
		return Address{}, ErrAddressSyntax
	}
	a.domain = name
	return a, nil
}

// behindRoute gives the mailbox behind a source route: @one.example,@two.example:
func behindRoute(s string) (mailbox string, ok bool) {
	for strings.HasPrefix(s, "@") {
		end := strings.IndexAny(s, ",:")
		if strings.HasPrefix(s, "@[") {
			end = strings.IndexByte(s, ']') + 1
		}
		if end <= 0 || end == len(s) || !isHost(s[1:end]) {
			return "", false
		}
		switch rest := s[end+1:]; s[end] {
		case ':':
			return rest, true
		case ',':
			s = rest
		default:
			return "", false
		}
	}
	return "", false
}

func isHost(s string) bool {
	if strings.HasPrefix(s, "[") {
		_, err := parseLiteral(s)
		return err == nil
	}
	_, err := domain.Parse(s)
	return err == nil
}

// parseLocal reads a dot-string or a quoted string.
func parseLocal(s string) (string, error) {
	if s[0] != '"' {
		if !isDotString(s) {
			return "", ErrAddressSyntax
		}
		return s, nil
	}
	if len(s) < 3 || s[len(s)-1] != '"' {
		return "", ErrAddressSyntax
	}
	var b strings.Builder
	body := s[1 : len(s)-1]
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case c == '"':
			return "", ErrAddressSyntax
		case c == '\\':
			i++
			if i == len(body) {
				return "", ErrAddressSyntax
			}
			b.WriteByte(body[i])
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

func parseLiteral(s string) (netip.Addr, error) {
	inner, ok := strings.CutSuffix(s[1:], "]")
	if !ok {
		return netip.Addr{}, ErrAddressSyntax
	}
	if len(inner) > 5 && strings.EqualFold(inner[:5], "IPv6:") {
		inner = inner[5:]
		if ip, err := netip.ParseAddr(inner); err == nil && ip.Is6() && ip.Zone() == "" {
			return ip, nil
		}
		return netip.Addr{}, ErrAddressSyntax
	}
	ip, err := netip.ParseAddr(inner)
	if err != nil || !ip.Is4() {
		return netip.Addr{}, ErrAddressSyntax
	}
	return ip, nil
}

// isDotString reports whether s may stand unquoted (RFC 5321 §4.1.2,
// RFC 6531 §3.3).
func isDotString(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" || strings.ContainsFunc(atom, func(r rune) bool { return !isAtext(r) }) {
			return false
		}
	}
	return true
}

func isAtext(r rune) bool {
	switch {
	case r >= 0x80, 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return true
	}
	return strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r)
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f || 0x80 <= r && r < 0xa0 }

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// IsNull reports whether a is the null sender.
func (a Address) IsNull() bool { return a.local == "" }

// IsLiteral reports whether the host part is an address literal.
func (a Address) IsLiteral() bool { return a.literal.IsValid() }

// Literal is the address of an address literal.
func (a Address) Literal() netip.Addr { return a.literal }

// Domain is the recipient domain, zero for an address literal.
func (a Address) Domain() domain.Name { return a.domain }

// Destination is what deliveries are grouped by: the domain as A-label, or
// the literal in brackets.
func (a Address) Destination() string {
	if a.IsLiteral() {
		return "[" + a.literal.String() + "]"
	}
	return a.domain.String()
}

// String gives the address as it may stand between < and >: quoted where
// needed, the domain as the sender wrote it. "" for the null sender.
func (a Address) String() string { return a.with(a.given) }

// ASCII gives the address with its domain as A-label, for a host without
// SMTPUTF8. ok is false when the local part itself needs SMTPUTF8.
func (a Address) ASCII() (s string, ok bool) {
	if a.IsLiteral() || a.IsNull() {
		return a.String(), true
	}
	return a.with(a.domain.String()), isASCII(a.local)
}

// LongLocal reports whether the local part is longer than a mailbox may have it.
func (a Address) LongLocal() bool { return len(a.local) > maxLocal }

// NeedsUTF8 reports whether the local part cannot be written in ASCII
// (RFC 6531).
func (a Address) NeedsUTF8() bool { return !isASCII(a.local) }

func (a Address) with(host string) string {
	if a.IsNull() {
		return ""
	}
	if isDotString(a.local) {
		return a.local + "@" + host
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(a.local) {
		if c := a.local[i]; c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(a.local[i])
	}
	b.WriteString(`"@`)
	b.WriteString(host)
	return b.String()
}

// MarshalText implements encoding.TextMarshaler.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Address) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*a = Address{}
		return nil
	}
	parsed, err := ParseAddress(string(b), true)
	if err != nil {
		return err
	}
	*a = parsed
	return nil
}
