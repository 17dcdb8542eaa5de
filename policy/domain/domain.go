// Package domain has one type, the checked domain name, which all other packages
// use as the key of what they know of a domain. A string becomes a [Name] in one
// place, [Parse]; from then on nobody lower-cases, trims or converts it again.
package domain

import (
	"errors"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Name is a domain name in its one canonical form: A-labels (RFC 5890),
// lower case, no trailing dot, at most 253 octets. The zero Name is no name.
// Names compare with == and serve as map keys.
type Name struct{ ascii string }

// ErrInvalid is the error of every name that [Parse] refuses.
var ErrInvalid = errors.New("not a domain name")

// lookup maps U-labels to A-labels as RFC 5891 §5 asks of a program that
// looks names up. Underscores are allowed by turning STD3 rules off and
// checking the octets ourselves: mail hosts with an underscore exist.
var lookup = idna.New(
	idna.MapForLookup(),
	idna.Transitional(false),
	idna.StrictDomainName(false),
	idna.VerifyDNSLength(true),
	idna.BidiRule(),
)

// Parse reads a domain name as people and DNS write it: any letter case,
// U-labels or A-labels, with or without the trailing dot. IP addresses,
// empty labels and octets outside letters, digits, hyphen and underscore
// are refused with [ErrInvalid].
func Parse(s string) (Name, error) {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 1000 || !utf8.ValidString(s) {
		return Name{}, ErrInvalid
	}
	ascii := strings.ToLower(s)
	if !isASCII(s) || hasALabel(ascii) {
		var err error
		if ascii, err = lookup.ToASCII(s); err != nil {
			return Name{}, ErrInvalid
		}
	}
	if len(ascii) > 253 {
		return Name{}, ErrInvalid
	}
	allDigits := false
	for label := range strings.SplitSeq(ascii, ".") {
		if !validLabel(label) {
			return Name{}, ErrInvalid
		}
		allDigits = strings.Trim(label, "0123456789") == ""
	}
	// A name whose last label is a number is an IPv4 address in some
	// spelling (RFC 1123 §2.1), never a domain.
	if allDigits {
		return Name{}, ErrInvalid
	}
	return Name{ascii}, nil
}

// MustParse is [Parse] for names written in the source; it panics on others.
func MustParse(s string) Name {
	n, err := Parse(s)
	if err != nil {
		panic("domain: " + s + ": " + err.Error())
	}
	return n
}

// isASCII and hasALabel leave out of IDNA what needs none of it, which is nearly
// every name on the path of a message.
func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func hasALabel(s string) bool { return strings.HasPrefix(s, "xn--") || strings.Contains(s, ".xn--") }

func validLabel(l string) bool {
	if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	for i := range len(l) {
		c := l[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// String gives the canonical form, "" for the zero Name.
func (n Name) String() string { return n.ascii }

// Qualified reports whether n can be fully qualified: it has more than one label.
func (n Name) Qualified() bool { return strings.Contains(n.ascii, ".") }

// IsZero reports whether n is no name.
func (n Name) IsZero() bool { return n.ascii == "" }

// MarshalText implements encoding.TextMarshaler.
func (n Name) MarshalText() ([]byte, error) { return []byte(n.ascii), nil }

// UnmarshalText implements encoding.TextUnmarshaler; the empty text is the
// zero Name.
func (n *Name) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*n = Name{}
		return nil
	}
	parsed, err := Parse(string(b))
	if err != nil {
		return err
	}
	*n = parsed
	return nil
}
