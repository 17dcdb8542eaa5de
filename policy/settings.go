package policy

import (
	"errors"
	"fmt"
)

// Version is a TLS protocol version by its number on the wire, as in
// crypto/tls. The zero Version is "none".
type Version uint16

// The versions a host can speak. SSL 3.0 is here to be named, never to be used.
const (
	SSL30 Version = 0x0300
	TLS10 Version = 0x0301
	TLS11 Version = 0x0302
	TLS12 Version = 0x0303
	TLS13 Version = 0x0304
)

// String gives "1.2" and the like, "" for none.
func (v Version) String() string {
	switch v {
	case 0:
		return ""
	case SSL30:
		return "ssl3"
	case TLS10:
		return "1.0"
	case TLS11:
		return "1.1"
	case TLS12:
		return "1.2"
	case TLS13:
		return "1.3"
	}
	return fmt.Sprintf("0x%04x", uint16(v))
}

// ErrVersion is the error of a version outside 1.0 to 1.3.
var ErrVersion = errors.New("TLS version must be one of 1.0, 1.1, 1.2, 1.3")

// ParseVersion reads "1.0" to "1.3"; "" is none.
func ParseVersion(s string) (Version, error) {
	if s == "" {
		return 0, nil
	}
	for v := TLS10; v <= TLS13; v++ {
		if s == v.String() {
			return v, nil
		}
	}
	return 0, ErrVersion
}

// MarshalText implements encoding.TextMarshaler.
func (v Version) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (v *Version) UnmarshalText(b []byte) (err error) {
	*v, err = ParseVersion(string(b))
	return err
}

// OnViolation says what happens to a message whose demands no host can meet.
type OnViolation string

// Drop, the default, blocks the message as soon as the evidence is conclusive.
// Defer tries again for the whole queue lifetime, and blocks it then.
const (
	Drop  OnViolation = "drop"
	Defer OnViolation = "defer"
)

// Settings are the stored TLS demands of one account. The zero Settings are
// those of a new account: opportunistic.
type Settings struct {
	// RequireTLS demands an encrypted session of at least MinVersion.
	RequireTLS bool `json:"require_tls"`
	// RequireValidCert demands that and a valid certificate. It implies TLS, for
	// a session in clear has no certificate.
	RequireValidCert bool `json:"require_valid_cert"`
	// MinVersion is the floor under either demand; zero means TLS 1.1. It does
	// not bind while neither flag is set.
	MinVersion Version `json:"min_version,omitempty"`

	// OnViolation is Drop unless it says Defer.
	OnViolation OnViolation `json:"on_violation,omitempty"`
	// ForwardSecrecy refuses suites with RSA key exchange under TLS 1.2 and below.
	ForwardSecrecy bool `json:"require_forward_secrecy,omitempty"`
	// AuthenticMX demands that the MX was learned over DNSSEC.
	AuthenticMX bool `json:"mx_auth_required,omitempty"`
	// RelaxedRequireTLS lets a message with REQUIRETLS go to a host that meets
	// everything else and does not list the keyword.
	RelaxedRequireTLS bool `json:"requiretls_relaxed,omitempty"`
	// EnforceOnSubusers makes these settings a floor for every subuser.
	EnforceOnSubusers bool `json:"enforce_on_subusers,omitempty"`
}

// Floor gives the version demanded under either flag. A version outside
// 1.1 to 1.3 can only come from a store that another program wrote: it counts
// as 1.3, the strictest.
func (s Settings) Floor() Version {
	switch s.MinVersion {
	case 0:
		return TLS11
	case TLS11, TLS12, TLS13:
		return s.MinVersion
	}
	return TLS13
}
