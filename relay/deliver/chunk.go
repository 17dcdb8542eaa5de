package deliver

import (
	"errors"
	"strconv"
)

// byChunks reports whether the content goes by BDAT: not to an address that has
// failed at it, and not if it could name recipients to one that has not proven
// to take it.
func (t *transaction) byChunks() bool {
	return t.session.ext.chunking && !t.doubted() && !t.began.Before(t.peer.noChunks) &&
		(t.proven() || t.mail.body.Size() <= oneFlight && !t.mail.namesRecipients())
}

// proven reports whether the address has taken content by BDAT lately.
func (t *transaction) proven() bool { return t.began.Before(t.peer.chunks) }

// bdat announces the whole message as one chunk, the last one or not.
func (t *transaction) bdat(last bool) {
	t.chunked = true
	t.session.out = strconv.AppendInt(append(t.session.out, "BDAT "...), t.mail.body.Size(), 10)
	if last {
		t.session.out = append(t.session.out, " LAST"...)
	}
	t.session.out = append(t.session.out, "\r\n"...)
}

// chunk sends the message by BDAT after an accepted envelope. An address that has
// not proven to take it gets the content first, and the end when it has answered
// for that: a host that only lists CHUNKING has taken nothing then, whatever it
// did with the octets (RFC 3030 §2), and can be given the message by DATA.
func (t *transaction) chunk() {
	t.bdat(t.proven())
	if t.proven() {
		t.message(false)
		return
	}
	t.begun = true
	w := content{c: t.session.conn, gate: t.mail.gate, watch: true, part: true}
	sent := w.send(t.mail.body)
	rep := w.early
	if !errors.Is(sent, errEarly) {
		if isOwn(sent) || byUs(sent) {
			t.err = sent
			return
		}
		rep, _ = t.replyWithin(min(t.session.timeout, chunkWithin), sent)
	}
	switch {
	case byUs(t.err):
	case t.err != nil, aboutVerb(rep.code) && w.left:
		t.lied()
	case errors.Is(sent, errEarly) && (rep.code < 400 || w.surplus()):
		t.misstep(false, nil, false)
	case rep.positive() && t.surplus():
	case rep.positive() && t.mail.gate != nil && !t.mail.gate.pass():
		t.err = errChanged
	case rep.positive():
		t.heard(rep)
		t.session.out = append(t.session.out, "BDAT 0 LAST\r\n"...)
		sent = t.session.flush()
		t.ended = sent == nil
		t.hearFinal(sent, false)
	default:
		t.final = t.export(rep)
		t.closing(rep)
		if errors.Is(sent, errEarly) || t.unclear {
			t.session.broken = true // in the middle of the chunk
			return
		}
		t.confirm(rep.fingerprint(), false)
		t.session.broken = true // in the middle of the message
	}
}

// aboutVerb reports whether a reply to BDAT says that the host does not know it,
// or not in this place, after it has accepted a recipient.
func aboutVerb(code int) bool { return code >= 500 && code <= 504 && code != 501 }

// lied notes that a host lists CHUNKING and does not do it.
func (t *transaction) lied() {
	t.session.client.peers.withoutChunks(t.session.key.addr)
	t.session.broken, t.unchunked = true, true
	if t.err == nil {
		t.err = errChunks
	}
}
