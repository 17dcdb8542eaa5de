package webhook

import (
	"errors"
	"net/netip"
	"net/url"
	"strconv"

	"code.dny.dev/ssrf"

	"tlsrelay/policy/domain"
)

// ErrTarget is the error of a URL that this relay does not post to.
var ErrTarget = errors.New("not a permitted webhook target")

// guardian refuses every address that is not a public one. It looks at the
// address dialled, so a name that resolves to another one later is refused
// then. Any port may be used: what is behind it is public.
var guardian = ssrf.New(ssrf.WithAnyPort())

// CheckURL reports whether raw can be an endpoint's URL or token URL: https
// with a host that is a domain name or a public address. allowInsecure
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
	if u.Port() != "" && !isPort(u.Port()) {
		return ErrTarget
	}
	// A host that is neither an address nor a domain name is an address in a
	// spelling that net/http or a resolver knows (127.0.0.1., 0x7f.1, digits of
	// other scripts), or nothing that can be asked.
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		if _, err := domain.Parse(u.Hostname()); err != nil {
			return ErrTarget
		}
		return nil
	}
	if !allowInsecure && guardian.SafeAddr(addr) != nil {
		return ErrTarget
	}
	return nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}
