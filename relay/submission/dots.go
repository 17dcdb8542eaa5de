package submission

import "bytes"

// undot takes the dot-stuffing out of the content of DATA (RFC 5321 §4.5.2)
// without copying it. Only CRLF begins a line here and only CRLF "." CRLF
// ends the content; every other look-alike is content, and scan.go refuses it.
type undot struct {
	midLine bool // the next octet does not begin a line
	cr      bool // the last octet was CR
}

// next passes the content in w to sink and says how much of w is used up and
// whether the end came. It leaves at most two octets, which need a third.
func (u *undot) next(w []byte, sink func([]byte)) (used int, end bool) {
	emit := func(b []byte) {
		if len(b) > 0 {
			sink(b)
		}
	}
	from, i := 0, 0 // content not yet emitted; where a line begins or goes on
	for i < len(w) {
		if !u.midLine && w[i] == '.' {
			rest := w[i:]
			if len(rest) < 3 && bytes.HasPrefix(endOfData, rest) {
				emit(w[from:i])
				return i, false
			}
			emit(w[from:i])
			if bytes.HasPrefix(rest, endOfData) {
				return i + len(endOfData), true
			}
			i++
			from, u.cr = i, false
		}
		u.midLine = true
		lf := bytes.IndexByte(w[i:], '\n')
		if lf < 0 {
			break
		}
		at := i + lf
		if at > from {
			u.cr = w[at-1] == '\r'
		}
		u.midLine = !u.cr
		u.cr = false
		i = at + 1
	}
	emit(w[from:])
	if len(w) > from {
		u.cr = w[len(w)-1] == '\r'
	}
	return len(w), false
}

var endOfData = []byte(".\r\n")
