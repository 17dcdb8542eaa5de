package submission

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"

	"tlsrelay/relay"
	"tlsrelay/relay/submission/content"
)

// newReply makes a reply, which the session returns as an error; enhanced is the
// enhanced status code, as in "5.7.0". go-smtp sends it as it is, even if the code
// is a 2xx.
func newReply(code int, enhanced, text string) *smtp.SMTPError {
	var e smtp.EnhancedCode
	for i, part := range strings.SplitN(enhanced, ".", 3) {
		e[i], _ = strconv.Atoi(part)
	}
	return &smtp.SMTPError{Code: code, EnhancedCode: e, Message: text}
}

// Replies to an address that cannot be read.
var (
	badSender    = newReply(501, "5.1.7", "Bad sender address syntax")
	badRecipient = newReply(501, "5.1.3", "Bad recipient address syntax")
)

// queued is the reply to a message that is durable.
func queued(id relay.MessageID) *smtp.SMTPError {
	return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0}, Message: "Ok: queued as " + id.String()}
}

// replyTo translates an error of the relay into a reply. An unknown error is taken
// for temporary, and its text stays inside.
func replyTo(err error) *smtp.SMTPError {
	var reply *smtp.SMTPError
	var fault *content.Fault
	switch {
	case errors.As(err, &reply):
		return reply
	case errors.As(err, &fault):
		return newReply(fault.Code, fault.Status, fault.Text)
	case errors.Is(err, relay.ErrNoSpace):
		return newReply(452, "4.3.1", "Insufficient storage, try again later")
	case errors.Is(err, relay.ErrAccountFull):
		return newReply(452, "4.3.1", "Too much mail of this account is waiting, try again later")
	case errors.Is(err, context.Canceled):
		return newReply(451, "4.3.2", "Service shutting down, try again later")
	}
	return newReply(451, "4.3.0", "The message could not be stored, try again later")
}
