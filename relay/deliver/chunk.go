package deliver

import (
	"errors"
	"strconv"
)

// byChunks reports whether the content goes by BDAT: not to an address that has
// failed at it, and not if it could name recipients to one that has not proven
// to take it.
func (x *exchange) byChunks() bool {
	return x.s.ext.chunking && !x.doubted() && !x.began.Before(x.peer.noChunks) &&
		(x.proven() || x.m.body.Size() <= oneFlight && !x.m.namesRecipients())
}

// proven reports whether the address has taken content by BDAT lately.
func (x *exchange) proven() bool { return x.began.Before(x.peer.chunks) }

// bdat announces the whole message as one chunk, the last one or not.
func (x *exchange) bdat(last bool) {
	x.chunked = true
	x.s.out = strconv.AppendInt(append(x.s.out, "BDAT "...), x.m.body.Size(), 10)
	if last {
		x.s.out = append(x.s.out, " LAST"...)
	}
	x.s.out = append(x.s.out, "\r\n"...)
}

// chunk sends the message by BDAT after an accepted envelope. An address that has
// not proven to take it gets the content first, and the end when it has answered
// for that: a host that only lists CHUNKING has taken nothing then, whatever it
// did with the octets (RFC 3030 §2), and can be given the message by DATA.
func (x *exchange) chunk() {
	x.bdat(x.proven())
	if x.proven() {
		x.message(false)
		return
	}
	x.begun = true
	w := content{c: x.s.conn, gate: x.m.gate, watch: true, part: true}
	sent := w.send(x.m.body)
	rep := w.early
	if !errors.Is(sent, errEarly) {
		if isOwn(sent) || byUs(sent) {
			x.err = sent
			return
		}
		rep, _ = x.replyWithin(min(x.s.timeout, chunkWithin), sent)
	}
	switch {
	case byUs(x.err):
	case x.err != nil, aboutVerb(rep.code) && w.left:
		x.lied()
	case errors.Is(sent, errEarly) && (rep.code < 400 || w.surplus()):
		x.misstep(false, nil, false)
	case rep.positive() && x.surplus():
	case rep.positive() && x.m.gate != nil && !x.m.gate.pass():
		x.err = errChanged
	case rep.positive():
		x.heard(rep)
		x.s.out = append(x.s.out, "BDAT 0 LAST\r\n"...)
		sent = x.s.flush()
		x.ended = sent == nil
		x.hearFinal(sent, false)
	default:
		x.final = x.export(rep)
		x.closing(rep)
		if errors.Is(sent, errEarly) || x.unclear {
			x.s.broken = true // in the middle of the chunk
			return
		}
		x.confirm(rep.wording(), false)
		x.s.broken = true // in the middle of the message
	}
}

// aboutVerb reports whether a reply to BDAT says that the host does not know it,
// or not in this place, after it has accepted a recipient.
func aboutVerb(code int) bool { return code >= 500 && code <= 504 && code != 501 }

// lied notes that a host lists CHUNKING and does not do it.
func (x *exchange) lied() {
	x.s.client.peers.withoutChunks(x.s.key.addr)
	x.s.broken, x.unchunked = true, true
	if x.err == nil {
		x.err = errChunks
	}
}
