package deliver

import (
	"errors"
	"slices"
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

// repeat marks the recipients to be asked about again, over a new connection, and
// reports whether there are any.
func (w *walk) repeat(x *exchange, batch []*recipient) bool {
	why := x.cause()
	if why == noCause {
		return false
	}
	some := false
	for i, r := range batch {
		a := x.answers[i]
		if !r.settled && (a.standing == taken || a.standing == unasked || a.reply.Code == 421 && (x.used() || x.refusedSome())) {
			r.visit, some = 0, true
		}
	}
	if some {
		w.e.metrics.again.WithLabelValues(string(why)).Inc()
	}
	if x.refusedSome() || x.final.Code != 0 {
		w.agains = 0 // this one answered for somebody, and so may the next one
	}
	return some
}

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
	return slices.ContainsFunc(x.answers, func(a answer) bool { return a.reply.Code != 0 })
}

// refusedSome reports whether the host had its reasons to hang up: it refused
// recipients or the message. x is nil without a transaction.
func (x *exchange) refusedSome() bool {
	return x != nil && (x.final.Code >= 500 || slices.ContainsFunc(x.answers, func(a answer) bool {
		return a.standing == refused && a.reply.Code != 421
	}))
}
