package events

// Reason is a stable token that says why a host did not take a message, or why a message
// failed. The set is closed, because tokens are metric labels. They are also in the API
// and in the X-fields of a DSN, and never change their meaning. policy/DECISIONS.md has
// those of TLS with their rows and codes.
type Reason string

// The reasons of a TLS requirement that was not met.
const (
	StartTLSNotOffered    Reason = "starttls_not_offered"
	StartTLSRefused       Reason = "starttls_refused"
	StartTLSTempfail      Reason = "starttls_tempfail"
	StartTLSMasked        Reason = "starttls_masked"
	StartTLSInjection     Reason = "starttls_injection"
	EHLOUnsupported       Reason = "ehlo_unsupported"
	TLSClosed             Reason = "tls_closed"
	TLSTimeout            Reason = "tls_timeout"
	TLSNotTLS             Reason = "tls_not_tls"
	TLSVersion            Reason = "tls_version"
	TLSHandshake          Reason = "tls_handshake"
	TLSDowngrade          Reason = "tls_downgrade"
	TLSLocalLimit         Reason = "tls_local_limit"
	ClientCertRequired    Reason = "client_cert_required"
	CertUntrusted         Reason = "cert_untrusted"
	CertExpired           Reason = "cert_expired"
	CertNotYetValid       Reason = "cert_not_yet_valid"
	CertName              Reason = "cert_name"
	CertWeakKey           Reason = "cert_weak_key"
	CertWeakSig           Reason = "cert_weak_sig"
	CertUsage             Reason = "cert_usage"
	RequireTLSUnsupported Reason = "requiretls_unsupported"
	MXUnauthenticated     Reason = "mx_unauthenticated"
	ForwardSecrecy        Reason = "forward_secrecy"
)

// The reasons that have nothing to do with TLS.
const (
	NoReason     Reason = ""
	ConnectFail  Reason = "connect_failed"  // refused, unreachable, timed out
	GreetingFail Reason = "greeting_failed" // no banner, or 4xx/5xx in it
	EHLOFail     Reason = "ehlo_failed"     // 4xx, 421 or a refusal in answer to EHLO
	SessionLost  Reason = "session_lost"    // the connection broke in mid-transaction
	HostAddress  Reason = "host_address"    // no usable address for the host
	HostPrivate  Reason = "host_private"    // private or loopback address, not allowed
	HostUntried  Reason = "host_untried"    // left out: bounds on hosts and addresses
	DNSFail      Reason = "dns_failed"      // SERVFAIL, timeout, REFUSED
	NoDomain     Reason = "no_such_domain"  // NXDOMAIN
	NoHost       Reason = "no_mail_host"    // the domain exists, no host for mail
	NullMX       Reason = "null_mx"         // RFC 7505
	MailLoop     Reason = "mail_loop"       // the best MX is this relay
	ReplyTemp    Reason = "reply_temporary" // the host answered 4xx to the transaction
	ReplyPerm    Reason = "reply_permanent" // the host answered 5xx to the transaction
	ReplyMixed   Reason = "reply_mixed"     // the host answered yes and no in one reply
	Unsupported  Reason = "unsupported"     // the message needs what no host offers (SMTPUTF8)
	Expired      Reason = "expired"         // the queue lifetime ended
	Dropped      Reason = "dropped"         // an operator dropped it
	AccountGone  Reason = "account_gone"    // the sending account was deleted
	Internal     Reason = "internal"        // our own fault; always temporary

	// NameRefused is 501 or 504 to EHLO: the host does not like our own name.
	NameRefused Reason = "ehlo_name_refused"
)

// Reasons gives the closed set, NoReason among them.
func Reasons() []Reason { return append([]Reason(nil), reasons...) }

var reasons = []Reason{
	NoReason,
	StartTLSNotOffered, StartTLSRefused, StartTLSTempfail, StartTLSMasked, StartTLSInjection, EHLOUnsupported,
	TLSClosed, TLSTimeout, TLSNotTLS, TLSVersion, TLSHandshake, TLSDowngrade, TLSLocalLimit, ClientCertRequired,
	CertUntrusted, CertExpired, CertNotYetValid, CertName, CertWeakKey, CertWeakSig, CertUsage,
	RequireTLSUnsupported, MXUnauthenticated, ForwardSecrecy,
	ConnectFail, GreetingFail, EHLOFail, NameRefused, SessionLost, HostAddress, HostPrivate, HostUntried, DNSFail, NoDomain,
	NoHost, NullMX, MailLoop, ReplyTemp, ReplyPerm, ReplyMixed, Unsupported, Expired, Dropped, AccountGone, Internal,
}
