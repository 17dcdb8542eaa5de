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

// refusal makes a reply; enhanced is "5.7.0". go-smtp sends it as it is, also
// when the code is a 2xx.
func refusal(code int, enhanced, text string) *smtp.SMTPError {
	var e smtp.EnhancedCode
	for i, part := range strings.SplitN(enhanced, ".", 3) {
		e[i], _ = strconv.Atoi(part)
	}
	return &smtp.SMTPError{Code: code, EnhancedCode: e, Message: text}
}

// Replies to an address without meaning.
var (
	badSender    = refusal(501, "5.1.7", "Bad sender address syntax")
	badRecipient = refusal(501, "5.1.3", "Bad recipient address syntax")
)

// queued is the reply to a message that we answer for now.
func queued(id relay.MessageID) *smtp.SMTPError {
	return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0}, Message: "Ok: queued as " + id.String()}
}

// replyTo translates what the rest of the relay says into a reply. Whatever
// is unknown may pass by itself, and its text is nobody's business.
func replyTo(err error) *smtp.SMTPError {
	var reply *smtp.SMTPError
	var fault *content.Fault
	switch {
	case errors.As(err, &reply):
		return reply
	case errors.As(err, &fault):
		return refusal(fault.Code, fault.Status, fault.Words)
	case errors.Is(err, relay.ErrNoSpace):
		return refusal(452, "4.3.1", "Insufficient storage, try again later")
	case errors.Is(err, relay.ErrAccountFull):
		return refusal(452, "4.3.1", "Too much mail of this account is waiting, try again later")
	case errors.Is(err, context.Canceled):
		return refusal(451, "4.3.2", "Service shutting down, try again later")
	}
	return refusal(451, "4.3.0", "The message could not be stored, try again later")
}
