package webhook

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"code.dny.dev/ssrf"
	"golang.org/x/net/idna"
)

// ErrTarget is the error of a URL that this relay does not post to.
var ErrTarget = errors.New("not a permitted webhook target")

// guardian refuses every address that is not public. It is asked about the address that
// is dialled, so that a name cannot resolve to a public address for CheckURL and to
// another one later. Every port is allowed, because its host is public.
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
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		if !isName(u.Hostname()) {
			return ErrTarget
		}
		return nil
	}
	if addr.Zone() != "" { // netip takes any text for one, and a network card is no target
		return ErrTarget
	}
	if !allowInsecure && guardian.SafeAddr(addr) != nil {
		return ErrTarget
	}
	return nil
}

// names maps a host as net/http does before it asks for its address. Underscores
// pass: hosts in private networks have them.
var names = idna.New(idna.MapForLookup(), idna.StrictDomainName(false), idna.VerifyDNSLength(true), idna.BidiRule())

// isName reports whether a host that is no address is a domain name. A resolver
// takes 127.0.0.1., 0x7f.1 and digits of other scripts for addresses: a name does
// not end in a number (RFC 1123 §2.1).
func isName(host string) bool {
	ascii, err := names.ToASCII(strings.TrimSuffix(host, "."))
	if err != nil || strings.Trim(ascii, ".") != ascii {
		return false
	}
	for _, c := range ascii {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_.", c) {
			return false
		}
	}
	last := ascii[strings.LastIndexByte(ascii, '.')+1:]
	return strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// Exclude names the addresses at which this process listens. No webhook and no token
// request goes there, even with AllowInsecure, because the operator's listener trusts its
// callers. An unspecified address stands for all addresses of this machine. Exclude is
// called before Run and Test.
func (s *Sender) Exclude(listeners []netip.AddrPort) { s.listeners = listeners }

// mayDial is the Control function of every connection. It is given the address that the
// name was resolved to.
func (s *Sender) mayDial(network, address string, c syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil || slices.ContainsFunc(s.listeners, func(l netip.AddrPort) bool { return reaches(at, l, isOfThisMachine) }) {
		return ErrTarget
	}
	if s.o.AllowInsecure {
		return nil
	}
	return guardian.Safe(network, address, c)
}

// reaches reports whether a connection to at arrives at a listener. A connection to
// the unspecified address goes to loopback. ofThisMachine is asked only about the
// port of a listener.
func reaches(at, listener netip.AddrPort, ofThisMachine func(netip.Addr) bool) bool {
	if at.Port() != listener.Port() {
		return false
	}
	to, bound := at.Addr().Unmap().WithZone(""), listener.Addr().Unmap().WithZone("")
	switch {
	case to == bound:
		return true
	case to.IsUnspecified():
		return bound.IsLoopback() || bound.IsUnspecified()
	}
	return bound.IsUnspecified() && ofThisMachine(to)
}

// isOfThisMachine reports whether an address is one of this machine now. Where its
// addresses cannot be read, every address is.
func isOfThisMachine(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	all, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(all, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap().WithZone("") == addr
	})
}
