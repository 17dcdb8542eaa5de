package deliver

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
