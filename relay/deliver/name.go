package deliver

import (
	"net/netip"
	"time"

	"go.uber.org/zap"

	"tlsrelay/policy/domain"
)

// nameLoggedFor is how long the log is silent on an address that refuses our name,
// for it does so on every connection.
const nameLoggedFor = time.Hour

// qualified gives a host name as EHLO takes it (RFC 5321 §4.1.1.1), "" for one that
// is not fully qualified.
func qualified(hostname string) string {
	if n, err := domain.Parse(hostname); err == nil && n.Qualified() {
		return n.String()
	}
	return ""
}

// literal gives an address as EHLO takes it in place of a name (RFC 5321 §4.1.3).
func literal(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		return "[IPv6:" + a.String() + "]"
	}
	return "[" + a.String() + "]"
}

// nameRefused tells the operator, for whom it is to mend.
func (o *opening) nameRefused() {
	k := o.s.key
	if o.e.refused.note(k.addr) {
		o.e.log.Warn("a host refuses the name that this relay gives in EHLO", zap.String("host", k.host),
			zap.Stringer("address", k.addr), zap.String("name", o.s.ehlo), zap.Stringer("reply", o.reply))
	}
}
