package deliver

// repeat marks the recipients to be asked about again, over a new connection, and
// reports whether there are any.
func (a *attempt) repeat(x *exchange, batch []*recipient) bool {
	why := x.cause()
	if why == noCause {
		return false
	}
	some := false
	for i, r := range batch {
		said := x.answers[i]
		if !r.settled && (said.standing == taken || said.standing == unasked || said.reply.Code == 421 && (x.used() || x.refusedSome())) {
			r.visit, some = 0, true
		}
	}
	if some {
		a.e.metrics.again.WithLabelValues(string(why)).Inc()
	}
	if x.refusedSome() || x.final.Code != 0 {
		a.agains = 0 // this one answered for somebody, and so may the next one
	}
	return some
}
