package webhook

import (
	"errors"
	"net/netip"
	"net/url"

	"code.dny.dev/ssrf"
)

// ErrTarget is the error of a URL that this relay does not post to.
var ErrTarget = errors.New("not a permitted webhook target")

// guardian refuses every address that is not a public one. It looks at the
// address dialled, so a name that resolves to another one later is refused
// then. Any port may be used: what is behind it is public.
var guardian = ssrf.New(ssrf.WithAnyPort())

// CheckURL reports whether raw can be an endpoint's URL or token URL: https
// with a host and, if the host is an address, a public one. allowInsecure
// permits http and any address. The error is [ErrTarget].
func CheckURL(raw string, allowInsecure bool) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil, u.Hostname() == "", u.Opaque != "":
		return ErrTarget
	case u.Scheme == "https":
	case u.Scheme == "http" && allowInsecure:
	default:
		return ErrTarget
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && !allowInsecure && guardian.SafeAddr(addr) != nil {
		return ErrTarget
	}
	return nil
}
