package resolve

import (
	"tlsrelay/events"
	"tlsrelay/relay"
)

// kind is a kind of trouble on the way to a host, and what a message with it comes
// to.
type kind struct {
	class  relay.Class
	reason events.Reason
	status string
	code   int // of the reply, where one is prescribed
}

// The kinds. All but the permanent ones pass with time; SERVFAIL is never
// "no MX".
var (
	dnsTrouble  = kind{relay.Temporary, events.DNSFail, "4.4.3", 0}
	noSuchName  = kind{relay.Permanent, events.NoDomain, "5.1.2", 0}
	noMailHost  = kind{relay.Permanent, events.NoHost, "5.4.4", 0}
	nullMX      = kind{relay.Permanent, events.NullMX, "5.1.10", 556} // RFC 7505 §3
	mailLoop    = kind{relay.Permanent, events.MailLoop, "5.4.6", 0}
	noAddress   = kind{relay.Temporary, events.HostAddress, "4.4.4", 0}
	privateHost = kind{relay.Temporary, events.HostPrivate, "4.4.4", 0}
	privateOnly = kind{relay.Permanent, events.HostPrivate, "5.4.4", 0} // a literal: nobody will change it
	untried     = kind{relay.Temporary, events.HostUntried, "4.4.4", 0}
	internal    = kind{relay.Temporary, events.Internal, "4.3.0", 0}
)

// destination is a failure of the whole destination.
func (k kind) destination(text string) *relay.Failure {
	f := &relay.Failure{
		Class: k.class, Reach: relay.ReachDestination, Reason: k.reason, Status: k.status,
		Reply: relay.Reply{Code: k.code, Text: text},
	}
	if k.code != 0 {
		f.Reply.Enhanced = k.status
	}
	return f
}

// host is a failure of one host; another may do better.
func (k kind) host(text string) *relay.Failure {
	f := k.destination(text)
	f.Reach = relay.ReachHost
	return f
}
