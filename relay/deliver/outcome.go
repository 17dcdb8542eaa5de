package deliver

import (
	"cmp"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode"

	"tlsrelay/policy"
	"tlsrelay/relay"
)

// cause is why a transaction is begun anew on another connection at once.
type cause string

// The causes, all of them such that the message was not taken.
const (
	noCause   cause = ""
	outOfStep cause = "out_of_step" // nobody knows which reply is whose
	noChunks  cause = "chunking"    // BDAT is listed and does not work
	worn      cause = "worn"        // the session has carried what the host lets it carry
	hungUp    cause = "hung_up"     // the host left before everybody was asked about
)

var causes = [...]cause{outOfStep, noChunks, worn, hungUp}

// cause says why t may be begun anew at once, if it may.
func (t *transaction) cause() cause {
	left := t.session.hungUp || t.err != nil && !isTimeout(t.err) && !isOwn(t.err)
	switch {
	case isOwn(t.err):
		return noCause
	case t.unchunked:
		return noChunks
	case t.untaken && !t.session.hungUp:
		return outOfStep
	case t.mailRefusal.Code/100 == 4 && !t.unclear && (t.session.carried > 0 || t.mailRefusal.Code == 421 && t.used()),
		t.mailRefusal.Code != 0 && t.unreset:
		return worn
	case !left || t.begun && (t.anyTaken() || !t.session.hungUp) || errors.Is(t.err, errStep):
		return noCause
	case t.used() || t.mailed && t.refusedAny():
		return hungUp
	}
	return noCause
}

// used reports whether the session had transactions before this one.
func (t *transaction) used() bool { return t.session.mails > 1 }

// refusedAny reports whether RCPT was refused, or put off, for anybody.
func (t *transaction) refusedAny() bool {
	return slices.ContainsFunc(t.answers, func(said rcptAnswer) bool { return said.reply.Code != 0 })
}

// refusedSome reports whether the host had its reasons to hang up: it refused
// recipients or the message. t is nil without a transaction.
func (t *transaction) refusedSome() bool {
	return t != nil && (t.final.Code >= 500 || slices.ContainsFunc(t.answers, func(said rcptAnswer) bool {
		return said.standing == refused && said.reply.Code != 421
	}))
}

// stopped reports that it was us who broke the transaction off.
func (t *transaction) stopped() bool { return byUs(t.err) }

// bodyFailed reports that our own store failed to give the body.
func (t *transaction) bodyFailed() bool { return isOwn(t.err) }

// unknowable reports whether the message may have been taken, though nobody said
// so, or whether no other host would do better.
func (t *transaction) unknowable() bool {
	return t.ended && (!t.session.hungUp || isTimeout(t.err)) || isOwn(t.err) || errors.Is(t.err, errStep)
}

// errorText tells people how the transaction broke off.
func (t *transaction) errorText() string {
	return errorText(cmp.Or(t.err, io.EOF), t.session.key.addr)
}

// diedIdle reports that the session was idle before, and the host gone, or said goodbye, before it took
// MAIL: what it may do to an idle session at any time. Silence is not that, nor
// an end after all of the message was sent, for it may have arrived (RFC 5321
// §4.5.3.2.6).
func (t *transaction) diedIdle() bool {
	switch {
	case !t.reused:
		return false
	case t.mailed:
		return t.mailRefusal.Code == 421
	}
	return t.session.hungUp || !t.ended && !isTimeout(t.err) && !isOwn(t.err) && !byUs(t.err)
}

// allHeard reports whether a broken conversation had nothing left to say: all
// recipients refused, or the message answered.
func (t *transaction) allHeard() bool {
	if t.final.Code != 0 {
		return true
	}
	for _, said := range t.answers {
		if said.standing == taken || said.standing == unasked {
			return false
		}
	}
	return true
}

// tlsFirst reports, of a session in clear, that nobody was refused for any
// other reason than the want of TLS, and nobody was served. MAIL then counts
// as refused: some hosts say so only of the recipients, or of the message.
func (t *transaction) tlsFirst() bool {
	if t.session.seen.TLS != nil {
		return false
	}
	var word relay.Reply
	for _, said := range t.answers {
		switch {
		case said.standing == refused && t.session.asksForTLS(said.reply):
			word = said.reply
		case said.standing != taken || !t.session.asksForTLS(t.final):
			return false
		default:
			word = t.final
		}
	}
	t.mailRefusal = word
	return true
}

// asksForTLS recognises, of a session in clear, "530 5.7.0 Must issue a STARTTLS
// command first" (RFC 3207 §4) and its variations. A 530 that does not say so is
// one only from a host that knows STARTTLS: from others it asks for AUTH (RFC 4954
// §6).
func (s *session) asksForTLS(r relay.Reply) bool {
	seen := s.seen
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

// fullFrom reports whether nobody was taken, or refused for another reason, from
// the ith recipient on.
func (t *transaction) fullFrom(i int) bool {
	return !slices.ContainsFunc(t.answers[i:], func(said rcptAnswer) bool { return said.standing != tooMany })
}

// isTooMany recognises the refusal of one recipient too many (RFC 5321
// §4.5.3.1.10), which old hosts say with 552: without an enhanced code that is
// too many where others were taken before. With an enhanced code for something
// else, such as a full disk, it is not that.
func isTooMany(r relay.Reply, others bool) bool {
	switch {
	case r.Code == 552:
		return r.Enhanced == "5.5.3" || r.Enhanced == "" && others
	case r.Code == 452 && r.Enhanced == "":
		return true
	}
	return r.Code/100 == 4 && r.Code != 421 && r.Enhanced == "4.5.3"
}
