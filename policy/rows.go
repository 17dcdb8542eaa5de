package policy

import (
	"slices"

	"tlsrelay/events"
)

// Row is one row of the decision table: what a host does, and what that means
// for mail under each kind of demands. Judge finds the row and answers with it.
type Row struct {
	// ID is A for what comes before STARTTLS, B for STARTTLS itself and C for the
	// handshake and after, with a number; and ENC where nothing is wrong. Rows
	// that show the same step share one.
	ID string
	// When is what the host does, going on from its name: "mx.example.com offers
	// no STARTTLS".
	When string
	// Source is the section of the RFC that says what the host's behaviour means.
	Source string
	// Why gives the reason for the answers, where they do not speak for themselves.
	Why string

	// reasons are those that the row can give, where it is not OK.
	reasons []events.Reason
	// fails is the demand that is not met; "" where nothing was learned of the TLS
	// of the host. Where nobody makes that demand, it is Encryption.
	fails Requirement
	cells cells
}

// column is a kind of demands. Columns for MTA-STS, DANE and REQUIRETLS follow
// behind the last one here.
type column int

const (
	columnO column = iota // opportunistic: nothing is demanded
	columnT               // TLS is demanded
	columnV               // TLS and a valid certificate are demanded
	columns
)

// cells are the answers of a row, by column. The zero Cell stands where a row
// never comes up in a column.
type cells [columns]Cell

// Cell is the answer of one row under one kind of demands.
type Cell struct {
	Class Evidence
	Mail  Mail
	// Again is what is tried at the host before the answer holds, on a new
	// connection but for SayHELO; "" for nothing.
	Again Action
}

// Mail is how a message may go to a host.
type Mail string

// NoMail leaves the host. ClearLater leaves it as well, and it may be asked again
// in clear when every other host was offered TLS (phase 2).
const (
	NoMail     Mail = ""
	Encrypted  Mail = "encrypted"
	InClear    Mail = "in_clear"
	ClearLater Mail = "clear_later"
)

// The answers. Only those of column O end in clear.
var (
	encrypted  = Cell{Class: OK, Mail: Encrypted}
	inClear    = Cell{Class: OK, Mail: InClear}
	violates   = Cell{Class: Conclusive}
	unclear    = Cell{Class: Inconclusive}
	suspicious = Cell{Class: Suspicious}
	nextHost   = Cell{Class: Unreachable}
	never      = Cell{}
)

func (c Cell) thenClear() Cell { c.Mail = ClearLater; return c }

func (c Cell) after(a Action) Cell { c.Again = a; return c }

// The rows that Judge answers with.
const (
	rowA1 = iota
	rowA2
	rowA3
	rowA4
	rowA5
	rowName
	rowA6
	rowEHLOMixed
	rowA7
	rowA8
	rowB1
	rowB2
	rowB3
	rowB4
	rowInjected
	rowClosedEarly
	rowClosed
	rowSilentEarly
	rowSilent
	rowB8
	rowC1
	rowC2
	rowForward
	rowProbed
	rowC3
	rowDowngrade
	rowC4
	rowC5
	rowC6
	rowC7
	rowC8
	rowTicket
	rowMX
	rowKeyword
	rowENC
	rowC11
	rowC12
)

// rows is the table, in the order in which a connection meets the rows.
var rows = [...]Row{
	rowA1: {
		ID: "A1", When: "cannot be reached, or does not greet", Source: "RFC 5321 §4.5.4.1",
		Why:     "Nothing was learned of its TLS, so nothing can be held against it: it may comply when it is back.",
		reasons: []events.Reason{events.ConnectFail, events.GreetingFail, events.Internal},
		cells:   cells{nextHost, nextHost, nextHost},
	},
	rowA2: {
		ID: "A2", When: "greets with 4xx: it takes no mail at the moment", Source: "RFC 5321 §3.8",
		reasons: []events.Reason{events.GreetingFail},
		cells:   cells{nextHost, nextHost, nextHost},
	},
	rowA3: {
		ID: "A3", When: "greets with 5xx: it takes no mail from this relay", Source: "RFC 5321 §3.1",
		Why:     "The message bounces only when every address of every host greets so, and then as an ordinary failure: no demand was tested.",
		reasons: []events.Reason{events.GreetingFail},
		cells:   cells{nextHost, nextHost, nextHost},
	},
	rowA4: {
		ID: "A4", When: "offers no STARTTLS", Source: "RFC 3207 §4",
		Why: "A public mail host must not require TLS (RFC 3207 §4), so to offer none is legal, and opportunistic mail goes out at once, " +
			"on the same connection. Under a demand it is a clear answer: the host was asked and has no TLS.",
		reasons: []events.Reason{events.StartTLSNotOffered}, fails: Encryption,
		cells: cells{inClear, violates, violates},
	},
	rowA5: {
		ID: "A5", When: "does not know EHLO (500, 502), and so no STARTTLS", Source: "RFC 5321 §3.2",
		Why:     "STARTTLS needs EHLO. HELO is said only where mail may go in clear; under a demand it would lead nowhere.",
		reasons: []events.Reason{events.EHLOUnsupported}, fails: Encryption,
		cells: cells{inClear.after(SayHELO), violates, violates},
	},
	rowName: {
		ID: "A5n", When: "refuses the name of this relay in EHLO (501, 504)", Source: "RFC 5321 §4.2.2",
		Why: "Both codes are about the argument, so the host knows EHLO: its TLS was not tested, and HELO, which gives up on TLS, is no answer. " +
			"What is wrong is our own name. No mail is dropped and none goes in clear for it; the log warns with the host and the name.",
		reasons: []events.Reason{events.NameRefused},
		cells:   cells{nextHost, nextHost, nextHost},
	},
	rowA6: {
		ID: "A6", When: "refuses EHLO with another 5xx", Source: "RFC 5321 §4.2.1",
		Why:     "A 550 refuses this relay, not the command: it does not say that STARTTLS is missing.",
		reasons: []events.Reason{events.EHLOFail},
		cells:   cells{nextHost, nextHost, nextHost},
	},
	rowEHLOMixed: {
		ID: "A6", When: "answers EHLO with lines of different codes", Source: "RFC 5321 §4.2.1",
		Why:     "A client may go by the code of any line, so such a reply proves nothing.",
		reasons: []events.Reason{events.EHLOFail}, fails: Encryption,
		cells: cells{unclear, unclear, unclear},
	},
	rowA7: {
		ID: "A7", When: "puts EHLO off with 4xx, or loses the connection there", Source: "RFC 5321 §4.2.1",
		reasons: []events.Reason{events.EHLOFail},
		cells:   cells{nextHost, nextHost, nextHost},
	},
	rowA8: {
		ID: "A8", When: "lists a STARTTLS that something on the way has masked", Source: "RFC 3207 §6",
		Why: "Middleboxes write X over the keyword, or change its letters. The host itself may well have TLS, so this is no proof against it; " +
			"somebody stands in between. Opportunistic mail loses nothing, for whoever masks the keyword can as well remove it.",
		reasons: []events.Reason{events.StartTLSMasked}, fails: Encryption,
		cells: cells{inClear, suspicious, suspicious},
	},

	rowB1: {
		ID: "B1", When: "puts STARTTLS off with 4xx", Source: "RFC 3207 §4",
		Why:     "454 means that TLS is not available for now. Other hosts may have it now, so they come before clear.",
		reasons: []events.Reason{events.StartTLSTempfail}, fails: Encryption,
		cells: cells{unclear.thenClear(), unclear, unclear},
	},
	rowB2: {
		ID: "B2", When: "closes the connection at STARTTLS with 421", Source: "RFC 5321 §3.8",
		reasons: []events.Reason{events.StartTLSTempfail},
		cells:   cells{nextHost, nextHost, nextHost},
	},
	rowB3: {
		ID: "B3", When: "offers STARTTLS and refuses it with 5xx", Source: "RFC 3207 §4",
		Why:     "It is a clear answer about this host, and only about it: the other hosts are tried before anything is decided.",
		reasons: []events.Reason{events.StartTLSRefused}, fails: Encryption,
		cells: cells{violates.thenClear(), violates, violates},
	},
	rowB4: {
		ID: "B4", When: "gives STARTTLS an answer that is neither yes nor no", Source: "RFC 3207 §4",
		Why:     "A 2xx other than 220, a 3xx, lines of different codes, or no reply at all by its form.",
		reasons: []events.Reason{events.StartTLSTempfail}, fails: Encryption,
		cells: cells{unclear.thenClear(), unclear, unclear},
	},
	rowInjected: {
		ID: "B5", When: "sends more in clear behind its answer to STARTTLS: somebody may have put it there", Source: "RFC 3207 §4.2",
		Why: "Whoever can add octets before the handshake wants them read as if they came after it (CVE-2011-0411). The connection ends, " +
			"and the host gets nothing in clear in this attempt, opportunistic or not: an active attacker was just seen, and clear is what the attacker is after.",
		reasons: []events.Reason{events.StartTLSInjection}, fails: Encryption,
		cells: cells{suspicious, suspicious, suspicious},
	},
	rowClosedEarly: {
		ID: "B6", When: "closes the connection in answer to STARTTLS", Source: "RFC 3207 §4.1",
		reasons: []events.Reason{events.TLSClosed}, fails: Encryption,
		cells: cells{unclear.thenClear(), unclear, unclear},
	},
	rowClosed: {
		ID: "B6", When: "closes the connection where the TLS handshake begins", Source: "RFC 3207 §4.1",
		Why: "Large ClientHellos make some hosts and middleboxes hang up, so one smaller hello is tried. Under a demand, a host that hangs up on both " +
			"is asked once more, with a hello that offers every version and carries no mail: if it takes a version below the floor, " +
			"it is too old (C1), which old hosts often say by hanging up.",
		reasons: []events.Reason{events.TLSClosed}, fails: Encryption,
		cells: cells{unclear.thenClear().after(RetryCompat), unclear.after(RetryCompat), unclear.after(RetryCompat)},
	},
	rowSilentEarly: {
		ID: "B7", When: "does not answer STARTTLS", Source: "RFC 3207 §4.1",
		reasons: []events.Reason{events.TLSTimeout}, fails: Encryption,
		cells: cells{unclear.thenClear(), unclear, unclear},
	},
	rowSilent: {
		ID: "B7", When: "falls silent where the TLS handshake begins", Source: "RFC 3207 §4.1",
		Why:     "The handshake has a clock of its own: a host that stalls in it must not stall the attempt.",
		reasons: []events.Reason{events.TLSTimeout}, fails: Encryption,
		cells: cells{unclear.thenClear().after(RetryCompat), unclear.after(RetryCompat), unclear.after(RetryCompat)},
	},
	rowB8: {
		ID: "B8", When: "answers the TLS handshake with something else", Source: "RFC 8446 §5.1",
		reasons: []events.Reason{events.TLSNotTLS}, fails: Encryption,
		cells: cells{unclear.thenClear(), unclear, unclear},
	},

	rowC1: {
		ID: "C1", When: "speaks no version of TLS that is high enough", Source: "RFC 8446 §6.2",
		Why: "Alert 70 (protocol_version), or a version below the floor. Opportunistic mail takes TLS 1.0 as well, and ignores the version of the account: " +
			"weak encryption is better than none (RFC 9325 §5.2).",
		reasons: []events.Reason{events.TLSVersion}, fails: MinimumVersion,
		cells: cells{violates.thenClear(), violates, violates},
	},
	rowC2: {
		ID: "C2", When: "refuses the TLS handshake (alerts 40, 71)", Source: "RFC 8446 §6.2",
		Why: "The host says itself that it finds nothing in common with us. Old hosts say so where they mean the version; " +
			"the hello that offers every version tells one from the other, as in B6.",
		reasons: []events.Reason{events.TLSHandshake}, fails: Encryption,
		cells: cells{violates.thenClear().after(RetryCompat), violates.after(RetryCompat), violates.after(RetryCompat)},
	},
	rowForward: {
		ID: "C2", When: "has no cipher suite with forward secrecy, which is demanded", Source: "RFC 9325 §4.1",
		Why:     "Only where the account sets require_forward_secrecy.",
		reasons: []events.Reason{events.ForwardSecrecy}, fails: ForwardSecret,
		cells: cells{never, violates, violates},
	},
	rowProbed: {
		ID: "C2", When: "refuses the TLS handshake, and takes one that offers every version", Source: "RFC 8446 §6.2",
		Why:     "It took a version that is good enough, so its refusals were about something else, which may pass.",
		reasons: []events.Reason{events.TLSHandshake}, fails: Encryption,
		cells: cells{never, unclear, unclear},
	},
	rowC3: {
		ID: "C3", When: "breaks the TLS handshake off (another alert)", Source: "RFC 8446 §6.2",
		Why:     "Alerts such as internal_error or decode_error may be load or a fault that passes.",
		reasons: []events.Reason{events.TLSHandshake}, fails: Encryption,
		cells: cells{unclear.thenClear().after(RetryCompat), unclear.after(RetryCompat), unclear.after(RetryCompat)},
	},
	rowDowngrade: {
		ID: "C3", When: "says in the TLS handshake that somebody has lowered the version", Source: "RFC 8446 §4.1.3",
		Why:     "The host marks its random value when it is asked for less than it has. Somebody on the way changed the hello, so clear is as unsafe as in B5.",
		reasons: []events.Reason{events.TLSDowngrade}, fails: Encryption,
		cells: cells{suspicious, suspicious, suspicious},
	},
	rowC4: {
		ID: "C4", When: "does not know its own name in the TLS handshake (alert 112)", Source: "RFC 6066 §3",
		Why:     "The certificate that comes without a server name is judged like any other: one that is valid for the host is valid however it was asked for.",
		reasons: []events.Reason{events.TLSHandshake}, fails: Encryption,
		cells: cells{violates.thenClear().after(RetryNoSNI), violates.after(RetryNoSNI), violates.after(RetryNoSNI)},
	},
	rowC5: {
		ID: "C5", When: "wants a certificate of this relay in the TLS handshake (alert 116)", Source: "RFC 8446 §6.2",
		Why: "In TLS 1.3 the client finishes first, so the alert may come at the first read after the handshake. " +
			"A host that only asks and then hangs up has not said that: that is C8.",
		reasons: []events.Reason{events.ClientCertRequired}, fails: Encryption,
		cells: cells{violates.thenClear(), violates, violates},
	},
	rowC6: {
		ID: "C6", When: "has TLS that is beyond what this relay can do", Source: "RFC 3207 §4.1",
		Why:     "A certificate that cannot be read, a key or a chain past the bounds of crypto/tls, a suite that it does not have. It will be so next time.",
		reasons: []events.Reason{events.TLSLocalLimit}, fails: Encryption,
		cells: cells{violates.thenClear(), violates, violates},
	},
	rowC7: {
		ID: "C7", When: "has a certificate that is not valid", Source: "RFC 9525 §6",
		Why: "Without require_valid_cert nobody asked who the host is, and encryption to anybody is better than none (RFC 7435 §3). The fault is recorded. " +
			"The certificate must lead to a trusted root, be in date, be meant for servers, have a strong key and signature, " +
			"and carry the MX host name or the recipient domain as a subject alternative name.",
		reasons: []events.Reason{events.CertUntrusted, events.CertExpired, events.CertNotYetValid, events.CertName,
			events.CertWeakKey, events.CertWeakSig, events.CertUsage}, fails: ValidCert,
		cells: cells{encrypted, encrypted, violates},
	},
	rowC8: {
		ID: "C8", When: "completes the TLS handshake and fails at the next command", Source: "RFC 3207 §4.2",
		Why: "EHLO must be said again inside TLS, and only its second answer counts. Only opportunistic mail spends another connection here: " +
			"the handshake was good, so a smaller hello can help little, and clear is the alternative.",
		reasons: []events.Reason{events.TLSClosed, events.TLSTimeout, events.EHLOFail}, fails: Encryption,
		cells: cells{unclear.thenClear().after(RetryCompat), unclear, unclear},
	},
	rowTicket: {
		ID: "C8r", When: "fails where an earlier TLS session is resumed, and is tried again without", Source: "RFC 8446 §C.4",
		Why: "A resumed session shows the certificate and the version of the day when its ticket was made, so it proves nothing about the host, neither for it nor against it. " +
			"Hosts that share a name may not share ticket keys, and some break on a ticket instead of ignoring it. " +
			"The ticket is forgotten, one full handshake is judged instead, and the address gets no ticket for a day.",
		reasons: []events.Reason{events.TLSClosed, events.TLSTimeout, events.TLSNotTLS, events.TLSVersion, events.TLSHandshake,
			events.TLSLocalLimit, events.ClientCertRequired, events.ForwardSecrecy,
			events.CertUntrusted, events.CertExpired, events.CertNotYetValid, events.CertName,
			events.CertWeakKey, events.CertWeakSig, events.CertUsage,
			events.EHLOFail, events.NameRefused, events.SessionLost, events.ReplyTemp, events.ReplyPerm},
		cells: cells{nextHost.after(RetryNoTicket), nextHost.after(RetryNoTicket), nextHost.after(RetryNoTicket)},
	},
	rowMX: {
		ID: "C9", When: "was named by unsigned DNS, and signed DNS is demanded", Source: "RFC 8689 §4.2.1",
		Why: "Only under mx_auth_required, and under REQUIRETLS. A valid certificate proves that the host is the one that DNS named; " +
			"only signed DNS proves that it is the recipient's.",
		reasons: []events.Reason{events.MXUnauthenticated}, fails: MXAuthentic,
		cells: cells{never, violates, violates},
	},
	rowKeyword: {
		ID: "C9", When: "does not list REQUIRETLS, which the message demands", Source: "RFC 8689 §4.2.1",
		Why:     "Only the list inside TLS counts. An account may relax this for its own mail (requiretls: relaxed).",
		reasons: []events.Reason{events.RequireTLSUnsupported}, fails: HostKeyword,
		cells: cells{never, never, violates},
	},
	rowENC: {
		ID: "ENC", When: "is encrypted, with a valid certificate", Source: "RFC 3207 §4.2",
		cells: cells{encrypted, encrypted, encrypted},
	},
	rowC11: {
		ID: "C11", When: "lost the connection while the message was handed over", Source: "RFC 5321 §3.8",
		Why:     "That TLS broke here is no reason for clear: the next connection uses TLS again. After the end of the content nothing else is tried, or the message may arrive twice.",
		reasons: []events.Reason{events.SessionLost},
		cells:   cells{nextHost, nextHost, nextHost},
	},
	rowC12: {
		ID: "C12", When: "takes no mail in clear, and its TLS failed", Source: "RFC 3207 §4",
		Why:     "It answered 530 in clear, when its TLS had failed: it wants TLS and did not refuse the message, so the message does not bounce.",
		reasons: []events.Reason{events.StartTLSTempfail},
		cells:   cells{unclear, unclear, unclear},
	},
}

// Rows gives the decision table, in the order in which a connection meets its
// rows.
func Rows() []Row { return slices.Clone(rows[:]) }

// Cell gives the answer of the row under demands of a class; the zero Cell where
// it never comes up there.
func (r *Row) Cell(c Class) Cell {
	switch c {
	case ClassOpportunistic:
		return r.cells[columnO]
	case ClassEncrypt:
		return r.cells[columnT]
	}
	return r.cells[columnV]
}

// Finding is the evidence of a verdict and its reason.
type Finding struct {
	Class  Evidence
	Reason events.Reason
}

// Findings gives every pair of class and reason that Judge gives with the row.
func (r *Row) Findings() []Finding {
	var all []Finding
	for _, c := range r.cells {
		if c == never {
			continue
		}
		reasons := r.reasons
		if c.Class == OK {
			reasons = []events.Reason{events.NoReason}
		}
		for _, reason := range reasons {
			if f := (Finding{c.Class, reason}); !slices.Contains(all, f) {
				all = append(all, f)
			}
		}
	}
	return all
}

// Words says what the host of v did, for people, going on from its name; "" for a
// row that nobody knows. clear: STARTTLS was left out on purpose, for TLS had
// failed before (phase 2).
func (v Verdict) Words(clear bool) string {
	if clear && v.Action == Proceed {
		return "failed at TLS, and takes mail in clear"
	}
	words := ""
	for i := range rows {
		r := &rows[i]
		switch {
		case r.ID != v.Row:
		case slices.Contains(r.Findings(), Finding{v.Class, v.Reason}):
			return r.When
		case words == "":
			words = r.When
		}
	}
	return words
}

// Words says what a class of evidence means for a demand, for people; "" for one
// that nobody knows.
func (e Evidence) Words() string {
	switch e {
	case OK:
		return "good enough"
	case Conclusive:
		return "it cannot do better"
	case Inconclusive:
		return "it may do better another time"
	case Unreachable:
		return "nothing is known of its TLS"
	case Suspicious:
		return "somebody may have tampered with the connection"
	}
	return ""
}

// Words says what the mail of a class demands, for people; "" for one that nobody
// knows.
func (c Class) Words() string {
	switch c {
	case ClassOpportunistic:
		return "TLS where possible"
	case ClassEncrypt:
		return "TLS demanded"
	case ClassValid:
		return "TLS and a valid certificate demanded"
	}
	return ""
}
