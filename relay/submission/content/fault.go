package content

// Fault is why content is refused for good.
type Fault struct {
	Code   int    // of the reply (RFC 5321 §4.2)
	Status string // the enhanced status code (RFC 3463)
	Text   string // of the reply
}

// Error implements error.
func (f *Fault) Error() string { return f.Text }

// ErrTooBig is the Fault of a message that has more octets than EHLO allows.
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

func malformed(text string) *Fault { return &Fault{550, "5.6.0", text} }

// smtpAPIFault is the Fault of an X-SMTPAPI header, in the words of SendGrid. about
// says more.
func smtpAPIFault(about string) *Fault {
	return malformed("Invalid SMTPAPI header" + about)
}
