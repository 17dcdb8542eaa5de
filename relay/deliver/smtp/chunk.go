package smtp

import (
	"errors"
	"strconv"

	"tlsrelay/relay/deliver/smtp/wire"
)

// byChunks reports whether the content goes by BDAT. It does not go so to an address
// that has failed at BDAT, nor to an unproven one if the content could name recipients.
func (t *Transaction) byChunks() bool {
	return t.Session.Ext.Chunking && !t.doubted() && !t.began.Before(t.peer.NoChunks) &&
		(t.proven() || t.mail.Body.Size() <= oneFlight && !t.mail.NamesRecipients())
}

// proven reports whether the address has accepted content by BDAT lately.
func (t *Transaction) proven() bool { return t.began.Before(t.peer.Chunks) }

// bdat announces the whole message as one chunk, the last one or not.
func (t *Transaction) bdat(last bool) {
	t.chunked = true
	t.Session.Out = strconv.AppendInt(append(t.Session.Out, "BDAT "...), t.mail.Body.Size(), 10)
	if last {
		t.Session.Out = append(t.Session.Out, " LAST"...)
	}
	t.Session.Out = append(t.Session.Out, "\r\n"...)
}

// chunk sends the message by BDAT after an accepted envelope. To an unproven address it
// sends the content first, and the last, empty chunk when that was answered: a host that
// only lists CHUNKING has accepted nothing by then, whatever it did with the octets
// (RFC 3030 §2), and can be given the message by DATA.
func (t *Transaction) chunk() {
	t.bdat(t.proven())
	if t.proven() {
		t.message(false)
		return
	}
	t.Begun = true
	w := wire.Content{Conn: t.Session.Conn, Gate: t.mail.Gate, Watch: true, Part: true}
	sent := w.Send(t.mail.Body)
	rep := w.Early
	if !errors.Is(sent, wire.ErrEarly) {
		if wire.IsOwn(sent) || wire.ByUs(sent) {
			t.Err = sent
			return
		}
		rep, _ = t.replyWithin(min(t.Session.Timeout, wire.ChunkWithin), sent)
	}
	switch {
	case wire.ByUs(t.Err):
	case t.Err != nil, aboutVerb(rep.Code) && w.Left:
		t.lied()
	case errors.Is(sent, wire.ErrEarly) && (rep.Code < 400 || w.Surplus()):
		t.misstep(false, nil, false)
	case rep.Positive() && t.surplus():
	case rep.Positive() && t.mail.Gate != nil && !t.mail.Gate.Pass():
		t.Err = wire.ErrChanged
	case rep.Positive():
		t.heard(rep)
		t.Session.Out = append(t.Session.Out, "BDAT 0 LAST\r\n"...)
		sent = t.Session.Flush()
		t.Ended = sent == nil
		t.hearFinal(sent, false)
	default:
		t.Final = t.export(rep)
		t.closing(rep)
		if errors.Is(sent, wire.ErrEarly) || t.Unclear {
			t.Session.Broken = true // in the middle of the chunk
			return
		}
		t.confirm(rep.Fingerprint(), false)
		t.Session.Broken = true // in the middle of the message
	}
}

// aboutVerb reports whether a reply to BDAT says that the host does not know the command,
// or not in this place.
func aboutVerb(code int) bool { return code >= 500 && code <= 504 && code != 501 }

// lied notes that a host lists CHUNKING and does not do it.
func (t *Transaction) lied() {
	t.Session.client.Peers.WithoutChunks(t.Session.Target.Addr)
	t.Session.Broken, t.unchunked = true, true
	if t.Err == nil {
		t.Err = errChunks
	}
}
