package events

import (
	"encoding/base64"
	"strconv"
	"time"
)

// NewProcessed says that the relay took responsibility for a recipient.
func NewProcessed(s Subject, at time.Time) Event {
	return newEvent(Processed, 0, s, at)
}

// NewDeferred says that attempt (from 1) failed for a reason that may pass. reply is
// that of the host, or our own text if no host answered.
func NewDeferred(s Subject, at time.Time, sess Session, attempt int, reply string, reason Reason) Event {
	e := newEvent(Deferred, attempt, s, at).in(sess)
	e.Attempt, e.Reply, e.Reason = attempt, reply, reason
	return e
}

// NewDelivered says that a host accepted the mail for a recipient, and with which reply.
func NewDelivered(s Subject, at time.Time, sess Session, reply string) Event {
	e := newEvent(Delivered, 0, s, at).in(sess)
	e.Reply = reply
	return e
}

// NewBounce says that a recipient is given up: because of its address
// (TypeBounce), or for another reason (TypeBlocked). status is the enhanced status code;
// "" becomes "5.0.0", which stands for "no code known" (RFC 3463 §3.1).
func NewBounce(s Subject, at time.Time, sess Session, typ BounceType, reply, status string, reason Reason) Event {
	if status == "" {
		status = "5.0.0"
	}
	e := newEvent(Bounce, 0, s, at).in(sess)
	e.Type, e.Reply, e.Status, e.Reason = typ, reply, status, reason
	e.Classification = Classify(reply, status, reason)
	return e
}

func newEvent(k Kind, attempt int, s Subject, at time.Time) Event {
	return Event{
		Kind: k, ID: eventID(k, attempt, s.MessageID, s.Recipient), At: at,
		Account: s.Account, MessageID: s.MessageID, Recipient: s.Recipient,
		Email: s.Email, SMTPID: s.SMTPID, Category: s.Category, UniqueArgs: s.UniqueArgs, Origin: s.Origin,
	}
}

// in adds what the SMTP session tells.
func (e Event) in(s Session) Event {
	e.IP, e.Host = s.LocalIP, s.Host
	e.TLS, e.TLSVersion, e.CipherName = s.TLSVersion != "", s.TLSVersion, s.CipherName
	e.CertErr = s.CertErr
	return e
}

// eventID depends on nothing but what the event is about. So an event that is computed
// again after a crash has the same id, and consumers can drop duplicates by it. A recipient
// has one event of each kind, but one deferral for each attempt. The form is SendGrid's:
// unpadded URL-safe base64 of readable text, at most 100 characters.
func eventID(k Kind, attempt int, message string, recipient int) string {
	var text [96]byte
	b := append(text[:0], k...)
	b = strconv.AppendInt(append(b, '-'), int64(attempt), 10)
	b = append(append(b, '-'), message...)
	b = strconv.AppendInt(append(b, '-'), int64(recipient), 10)
	var id [128]byte
	return string(base64.RawURLEncoding.AppendEncode(id[:0], b))
}
