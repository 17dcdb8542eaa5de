package deliver

import (
	"errors"
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

// cause says why x may be begun anew at once, if it may.
func (x *exchange) cause() cause {
	left := x.s.hungUp || x.err != nil && !isTimeout(x.err) && !isOwn(x.err)
	switch {
	case isOwn(x.err):
		return noCause
	case x.unchunked:
		return noChunks
	case x.untaken && !x.s.hungUp:
		return outOfStep
	case x.mail.Code/100 == 4 && !x.unclear && (x.s.carried > 0 || x.mail.Code == 421 && x.used()),
		x.mail.Code != 0 && x.unreset:
		return worn
	case !left || x.begun && (x.anyTaken() || !x.s.hungUp) || errors.Is(x.err, errStep):
		return noCause
	case x.used() || x.mailed && x.refusedAny():
		return hungUp
	}
	return noCause
}

// used reports whether the session had transactions before this one.
func (x *exchange) used() bool { return x.s.mails > 1 }

// refusedAny reports whether RCPT was refused, or put off, for anybody.
func (x *exchange) refusedAny() bool {
	return slices.ContainsFunc(x.answers, func(said answer) bool { return said.reply.Code != 0 })
}

// refusedSome reports whether the host had its reasons to hang up: it refused
// recipients or the message. x is nil without a transaction.
func (x *exchange) refusedSome() bool {
	return x != nil && (x.final.Code >= 500 || slices.ContainsFunc(x.answers, func(said answer) bool {
		return said.standing == refused && said.reply.Code != 421
	}))
}

// stopped reports that it was us who broke the transaction off.
func (x *exchange) stopped() bool { return byUs(x.err) }

// unread reports that our own store failed to give the body.
func (x *exchange) unread() bool { return isOwn(x.err) }

// unknowable reports whether the message may have been taken, though nobody said
// so, or whether no other host would do better.
func (x *exchange) unknowable() bool {
	return x.ended && (!x.s.hungUp || isTimeout(x.err)) || isOwn(x.err) || errors.Is(x.err, errStep)
}

// words tells people how the transaction broke off.
func (x *exchange) words() string {
	if x.err == nil {
		return faultWords[policy.Closed]
	}
	return wordsOf(x.err, x.s.key.addr)
}

// diedIdle reports that the session was idle before, and the host gone, or said goodbye, before it took
// MAIL: what it may do to an idle session at any time. Silence is not that, nor
// an end after all of the message was sent, for it may have arrived (RFC 5321
// §4.5.3.2.6).
func (x *exchange) diedIdle() bool {
	switch {
	case !x.reused:
		return false
	case x.mailed:
		return x.mail.Code == 421
	}
	return x.s.hungUp || !x.ended && !isTimeout(x.err) && !isOwn(x.err) && !byUs(x.err)
}

// allHeard reports whether a broken conversation had nothing left to say: all
// recipients refused, or the message answered.
func (x *exchange) allHeard() bool {
	if x.final.Code != 0 {
		return true
	}
	for _, said := range x.answers {
		if said.standing == taken || said.standing == unasked {
			return false
		}
	}
	return true
}

// tlsFirst reports, of a session in clear, that nobody was refused for any
// other reason than the want of TLS, and nobody was served. MAIL then counts
// as refused: some hosts say so only of the recipients, or of the message.
func (x *exchange) tlsFirst() bool {
	if x.s.seen.TLS != nil {
		return false
	}
	var word relay.Reply
	for _, said := range x.answers {
		switch {
		case said.standing == refused && x.s.asksForTLS(said.reply):
			word = said.reply
		case said.standing != taken || !x.s.asksForTLS(x.final):
			return false
		default:
			word = x.final
		}
	}
	x.mail = word
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
func (x *exchange) fullFrom(i int) bool {
	return !slices.ContainsFunc(x.answers[i:], func(said answer) bool { return said.standing != tooMany })
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
