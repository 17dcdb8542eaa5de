package deliver

import "tlsrelay/relay/deliver/smtp"

// repeat marks the recipients to ask about again over a new connection, and reports
// whether there are any.
func (a *attempt) repeat(t *smtp.Transaction, batch []*recipient) bool {
	why := t.Cause()
	if why == smtp.NoCause {
		return false
	}
	some := false
	for i, r := range batch {
		said := t.Answers[i]
		if !r.done && (said.Standing == smtp.Taken || said.Standing == smtp.Unasked || said.Reply.Code == 421 && (t.Used() || t.RefusedSome())) {
			r.askedIn, some = 0, true
		}
	}
	if some {
		a.e.metrics.again.WithLabelValues(string(why)).Inc()
	}
	if t.RefusedSome() || t.Final.Code != 0 {
		a.agains = 0 // this session answered for a recipient, and so may the next one
	}
	return some
}
