package content

// Fault is why content is refused for good.
type Fault struct {
	Code   int    // of the reply (RFC 5321 §4.2)
	Status string // its enhanced status code (RFC 3463)
	Words  string // its text
}

// Error implements error.
func (f *Fault) Error() string { return f.Words }

// ErrTooBig is the fault of a message beyond the size that is announced.
var ErrTooBig = &Fault{552, "5.3.4", "Message is too big"}

var (
	errHeaderTooBig = &Fault{552, "5.3.4", "The header section is too big"}
	errRepeated     = &Fault{552, "5.3.4", "X-SMTPAPI and Message-ID are too long for so many recipients"}
	errLoop         = &Fault{554, "5.4.6", "Too many hops: a mail loop"}
	errSMTPAPI      = smtpAPIFault("")
	errBareCR       = malformed("Bare CR is not allowed in a message")
	errBareLF       = malformed("Bare LF is not allowed in a message")
	errDoubtfulEnd  = malformed("CR CR LF before the final dot: not every server takes that for the end of a message")
	errEndLike      = malformed("A line of NULs and a dot: some servers take it for the end of a message")
)

func malformed(words string) *Fault { return &Fault{550, "5.6.0", words} }

// smtpAPIFault calls a header that cannot be read what SendGrid calls it.
func smtpAPIFault(about string) *Fault {
	return malformed("Invalid SMTPAPI header" + about)
}
