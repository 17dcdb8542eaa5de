package smtp

import (
	"cmp"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode"

	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver/smtp/wire"
)

// Cause is why a transaction may be made again on another connection at once.
type Cause string

// The causes. In each case the host has not accepted the message.
const (
	NoCause   Cause = ""
	outOfStep Cause = "out_of_step" // which reply answers what is not known
	noChunks  Cause = "chunking"    // the host lists CHUNKING and refuses BDAT
	worn      Cause = "worn"        // the session has carried as many messages as the host allows
	hungUp    Cause = "hung_up"     // the host left before everybody was asked about
)

// Causes are all of them but NoCause.
var Causes = [...]Cause{outOfStep, noChunks, worn, hungUp}

// Cause says why the transaction may be made again at once, if it may.
func (t *Transaction) Cause() Cause {
	left := t.Session.HungUp || t.Err != nil && !wire.IsTimeout(t.Err) && !wire.IsOwn(t.Err)
	switch {
	case wire.IsOwn(t.Err):
		return NoCause
	case t.unchunked:
		return noChunks
	case t.untaken && !t.Session.HungUp:
		return outOfStep
	case t.MailRefusal.Code/100 == 4 && !t.Unclear && (t.Session.Carried > 0 || t.MailRefusal.Code == 421 && t.Used()),
		t.MailRefusal.Code != 0 && t.unreset:
		return worn
	case !left || t.Begun && (t.anyTaken() || !t.Session.HungUp) || errors.Is(t.Err, wire.ErrStep):
		return NoCause
	case t.Used() || t.Mailed && t.refusedAny():
		return hungUp
	}
	return NoCause
}

// Used reports whether the session had transactions before this one.
func (t *Transaction) Used() bool { return t.Session.Mails > 1 }

// refusedAny reports whether RCPT was refused, or put off, for anybody.
func (t *Transaction) refusedAny() bool {
	return slices.ContainsFunc(t.Answers, func(said RcptAnswer) bool { return said.Reply.Code != 0 })
}

// RefusedSome reports whether the host refused recipients or the message, and so had its
// reasons to hang up. A nil transaction refused nothing.
func (t *Transaction) RefusedSome() bool {
	return t != nil && (t.Final.Code >= 500 || slices.ContainsFunc(t.Answers, func(said RcptAnswer) bool {
		return said.Standing == Refused && said.Reply.Code != 421
	}))
}

// Stopped reports whether we broke the transaction off ourselves.
func (t *Transaction) Stopped() bool { return wire.ByUs(t.Err) }

// BodyFailed reports whether our own store failed to give the body.
func (t *Transaction) BodyFailed() bool { return wire.IsOwn(t.Err) }

// Unknowable reports whether a transaction with Err must not be made again in the same
// attempt: the host may have accepted the message, or no other host would do better.
func (t *Transaction) Unknowable() bool {
	return t.Ended && (!t.Session.HungUp || wire.IsTimeout(t.Err)) || wire.IsOwn(t.Err) || errors.Is(t.Err, wire.ErrStep)
}

// ErrorText says in plain words how the transaction broke off.
func (t *Transaction) ErrorText() string {
	return wire.ErrorText(cmp.Or(t.Err, io.EOF), t.Session.Target.Addr)
}

// DiedIdle reports whether the session came out of the pool, and the host left before it
// accepted MAIL, which it may do to an idle session at any time. Silence is not that, nor
// is an end after all of the message was sent, for it may have arrived (RFC 5321
// §4.5.3.2.6).
func (t *Transaction) DiedIdle() bool {
	switch {
	case !t.reused:
		return false
	case t.Mailed:
		return t.MailRefusal.Code == 421
	}
	return t.Session.HungUp || !t.Ended && !wire.IsTimeout(t.Err) && !wire.IsOwn(t.Err) && !wire.ByUs(t.Err)
}

// AllHeard reports whether every recipient was refused, or the message answered, before
// the conversation broke off.
func (t *Transaction) AllHeard() bool {
	if t.Final.Code != 0 {
		return true
	}
	for _, said := range t.Answers {
		if said.Standing == Taken || said.Standing == Unasked {
			return false
		}
	}
	return true
}

// TLSFirst reports whether, in clear, the host served nobody and refused all for want of
// TLS alone. MAIL then counts as refused: some hosts ask for TLS only at RCPT, or after
// the content.
func (t *Transaction) TLSFirst() bool {
	if t.Session.Seen.TLS != nil {
		return false
	}
	var word relay.Reply
	for _, said := range t.Answers {
		switch {
		case said.Standing == Refused && t.Session.AsksForTLS(said.Reply):
			word = said.Reply
		case said.Standing != Taken || !t.Session.AsksForTLS(t.Final):
			return false
		default:
			word = t.Final
		}
	}
	t.MailRefusal = word
	return true
}

// AsksForTLS recognises, in clear, "530 5.7.0 Must issue a STARTTLS command first" (RFC
// 3207 §4) and its variations. A 530 with another text asks for TLS only if the host has
// STARTTLS; other hosts ask for AUTH by it (RFC 4954 §6).
func (s *Session) AsksForTLS(r relay.Reply) bool {
	seen := s.Seen
	switch {
	case seen.TLS != nil:
		return false
	case r.Code == 530:
		return seen.Plain || seen.StartTLS != policy.NotOffered || speaksOfTLS(r.Text)
	}
	return r.Code >= 500 && strings.HasPrefix(r.Enhanced, "5.7.") && speaksOfTLS(r.Text)
}

// speaksOfTLS looks for the word, but not within an address.
func speaksOfTLS(text string) bool {
	before, address, found := strings.Cut(text, "<")
	if found {
		_, after, _ := strings.Cut(address, ">")
		return speaksOfTLS(before) || speaksOfTLS(after)
	}
	isNoLetter := func(r rune) bool { return !unicode.IsLetter(r) }
	return slices.ContainsFunc(strings.FieldsFunc(text, isNoLetter), func(word string) bool {
		return strings.EqualFold(word, "TLS") || strings.EqualFold(word, "STARTTLS") || strings.EqualFold(word, "TLSv")
	})
}

// FullFrom reports whether all recipients from the ith on were refused for want of room
// in this transaction.
func (t *Transaction) FullFrom(i int) bool {
	return !slices.ContainsFunc(t.Answers[i:], func(said RcptAnswer) bool { return said.Standing != TooMany })
}

// isTooMany recognises the refusal of one recipient too many (RFC 5321 §4.5.3.1.10). Old
// hosts say so by 552: without an enhanced code it means that if others were accepted. An
// enhanced code for something else, such as a full mailbox, means something else.
func isTooMany(r relay.Reply, others bool) bool {
	switch {
	case r.Code == 552:
		return r.Enhanced == "5.5.3" || r.Enhanced == "" && others
	case r.Code == 452 && r.Enhanced == "":
		return true
	}
	return r.Code/100 == 4 && r.Code != 421 && r.Enhanced == "4.5.3"
}
