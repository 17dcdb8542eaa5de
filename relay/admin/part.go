package admin

import (
	"net/http"
	"net/url"
	"strconv"
)

// part is a part of a list. The body is its rows; what there is behind them
// stands in the header.
type part struct {
	rows any
	more int        // rows behind these
	next url.Values // what to ask for to go on, beside what was asked
}

// Remaining is the header that says how many rows there are behind those of the
// body. Link (RFC 8288) has where they are.
const Remaining = "X-Remaining"

// tell writes the header.
func (p part) tell(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(Remaining, strconv.Itoa(p.more))
	if p.more == 0 || p.next == nil {
		return
	}
	q := r.URL.Query()
	for name, value := range p.next {
		q[name] = value
	}
	w.Header().Set("Link", "<"+r.URL.Path+"?"+q.Encode()+`>; rel="next"`)
}
