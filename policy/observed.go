package policy

import (
	"time"

	"tlsrelay/events"
)

// Stage is how far a connection came.
type Stage string

// The stages of a connection, in order.
const (
	StageConnect   Stage = "connect"
	StageGreeting  Stage = "greeting"
	StageEHLO      Stage = "ehlo"
	StageStartTLS  Stage = "starttls"  // the command and its reply
	StageHandshake Stage = "handshake" // after the 220
	StageEHLOTLS   Stage = "ehlo_tls"  // the second EHLO, inside TLS
	StageReady     Stage = "ready"     // the next command would be MAIL
	StageMail      Stage = "mail"      // MAIL was answered
)

// Fault is what ended a connection's way, where it was not a reply.
type Fault string

// The faults, as relay/deliver reads them off the network and crypto/tls.
const (
	NoFault    Fault = ""
	NoConnect  Fault = "no_connect"  // no connection: refused, no route, timed out
	Timeout    Fault = "timeout"     // silence past the step's bound
	Closed     Fault = "closed"      // EOF or reset
	Garbage    Fault = "garbage"     // a reply that is none, or past its bounds
	NotTLS     Fault = "not_tls"     // something else than a TLS record after the 220
	Alert      Fault = "alert"       // the host sent a TLS alert: Observed.Alert
	VersionLow Fault = "version"     // the host chose a version below our floor
	ClientCert Fault = "client_cert" // the host wants a certificate from us
	LocalLimit Fault = "local_limit" // our own TLS stack cannot
	Downgrade  Fault = "downgrade"   // the downgrade canary of RFC 8446 §4.1.3
)

// Offer is what the answer to EHLO said of STARTTLS.
type Offer string

// A masked STARTTLS was there until a middlebox wrote over it ("XXXXXXXA").
const (
	NotOffered Offer = "not_offered"
	Offered    Offer = "offered"
	Masked     Offer = "masked"
)

// Hello is which ClientHello a connection used.
type Hello string

// FullHello is the first one. CompatHello has no hybrid key exchange and, where
// the floor allows, no TLS 1.3: some hosts and middleboxes fail on a hello that does
// not fit into one packet, or on TLS 1.3. NoSNIHello is the full one without a server
// name (row C4). ProbeHello offers every version, below the floor as well, to find
// out which a host has; such a connection carries no mail.
const (
	FullHello   Hello = "full"
	CompatHello Hello = "compat"
	NoSNIHello  Hello = "no_sni"
	ProbeHello  Hello = "version_probe"
)

// Observed is what was seen of one connection to one address. It is plain data:
// relay/deliver fills it in and judges nothing.
type Observed struct {
	Stage Stage
	Fault Fault
	Code  int   // the reply code at Stage, 0 without a reply
	Mixed bool  // the lines of that reply differ in code
	HELO  bool  // it was HELO's, after EHLO was not known
	Alert uint8 // of Fault Alert (RFC 8446 §6)

	StartTLS Offer
	Injected bool  // plaintext bytes followed the 220 to STARTTLS
	Hello    Hello // "" until one was sent
	Ticket   bool  // that offered a session ticket
	Plain    bool  // phase 2: STARTTLS was not tried on purpose
	// FirstMail tells, at StageMail, that the session had carried no mail before.
	FirstMail bool

	TLS        *Session // what the handshake achieved; nil in clear
	RequireTLS bool     // EHLO inside TLS lists REQUIRETLS
}

// Session is what a finished handshake achieved.
type Session struct {
	Version       Version     `json:"version"`
	Cipher        string      `json:"cipher"`
	ForwardSecret bool        `json:"forward_secret"`
	Resumed       bool        `json:"resumed,omitempty"`
	Cert          Certificate `json:"certificate"`
}

// Certificate is the outcome of every check on the host's certificate, and a
// summary for the evidence. All checks are always made, for a report has to name
// every fault, and x509.Certificate.Verify stops at the first.
type Certificate struct {
	// Faults are the cert_* reasons found, most telling first; none: valid.
	// The name is checked against the Decision's Names.
	Faults []events.Reason `json:"faults,omitempty"`
	// Matched is the reference name that the certificate carries.
	Matched  string    `json:"matched,omitempty"`
	Subject  string    `json:"subject,omitempty"`
	Issuer   string    `json:"issuer,omitempty"`
	NotAfter time.Time `json:"not_after,omitzero"`
	SHA256   string    `json:"sha256,omitempty"` // of the leaf, hex
}

// Valid reports whether the certificate satisfies require_valid_cert.
func (c Certificate) Valid() bool { return len(c.Faults) == 0 }
