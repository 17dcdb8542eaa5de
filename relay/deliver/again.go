package deliver

// repeat marks the recipients to be asked about again, over a new connection, and
// reports whether there are any.
func (a *attempt) repeat(t *transaction, batch []*recipient) bool {
	why := t.cause()
	if why == noCause {
		return false
	}
	some := false
	for i, r := range batch {
		said := t.answers[i]
		if !r.done && (said.standing == taken || said.standing == unasked || said.reply.Code == 421 && (t.used() || t.refusedSome())) {
			r.askedIn, some = 0, true
		}
	}
	if some {
		a.e.metrics.again.WithLabelValues(string(why)).Inc()
	}
	if t.refusedSome() || t.final.Code != 0 {
		a.agains = 0 // this one answered for somebody, and so may the next one
	}
	return some
}
