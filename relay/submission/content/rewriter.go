package content

import (
	"bufio"
	"io"
	"sync"
	"time"
)

// Rewriter turns what a client sends into what is stored. The caller sets the
// exported fields, gives each piece to Next, in order, and calls End. After the
// first error nothing is written any more; Next still looks at the line ends.
type Rewriter struct {
	Envelope           Envelope
	MaxBytes           int64 // of content with its line ends in order
	RefuseBareNewlines bool  // a CR or an LF that stands alone; else newlines mends it
	To                 Sink

	lines  newlines
	scan   scan
	size   int64         // in octets, of the content with its line ends in order
	last   byte          // its last octet so far
	head   []byte        // the content, while the header section is not complete
	inBody bool          // the header section is complete
	out    *bufio.Writer // to To; nil unless inBody
	err    error         // the first

	summary Summary
}

// Sink takes the content to be stored. Its errors refuse the content.
type Sink interface {
	// Gather tells how much memory the header section takes, in octets, while it
	// is not complete. Write is called once it is, and its memory is free then.
	Gather(n int) error
	io.Writer
}

// Next takes the next piece of content. It returns the first error that there was:
// a *[Fault], an error of To, or that of Refuse. It writes to b and does not keep
// it.
func (r *Rewriter) Next(b []byte) error {
	r.lines.next(b, r.take)
	return r.err
}

// Refuse refuses the content with err, unless it is refused already.
func (r *Rewriter) Refuse(err error) {
	if r.err == nil {
		r.err, r.head = err, nil
	}
}

// BareCR reports whether a CR stood alone in the content so far.
func (r *Rewriter) BareCR() bool { return r.lines.bareCR }

// take takes the next piece, with its line ends in order.
func (r *Rewriter) take(b []byte) {
	if r.err != nil || r.newlineFault() != nil {
		return
	}
	r.size += int64(len(b))
	if r.size > r.MaxBytes {
		r.Refuse(ErrTooBig)
		return
	}
	r.scan.next(b)
	r.last = b[len(b)-1]
	if r.inBody {
		r.put(b)
		return
	}
	seen := len(r.head)
	head := b // most often it is all of it, and need not be copied
	if seen > 0 {
		if !r.gather(b) {
			return
		}
		head = r.head
	}
	end, complete := headerEnd(head, seen)
	switch {
	case complete:
		r.begin(head, end)
	case len(head) > maxHeader:
		r.Refuse(errHeaderTooBig)
	case seen == 0:
		r.gather(b)
	}
}

// gather adds to the head, and reports whether there is memory for it.
func (r *Rewriter) gather(b []byte) bool {
	r.head = append(r.head, b...)
	if err := r.To.Gather(cap(r.head)); err != nil {
		r.Refuse(err)
	}
	return r.err == nil
}

// begin writes the start of the message. The first end octets of head are the
// header section.
func (r *Rewriter) begin(head []byte, end int) {
	r.inBody, r.head = true, nil
	r.out = buffers.Get().(*bufio.Writer)
	r.out.Reset(r.To)
	if end > maxHeader {
		r.Refuse(errHeaderTooBig)
		return
	}
	mbox := mboxLines(head[:end])
	head, end = head[mbox:], end-mbox
	h := parseHeader(head[:end])
	if h.received > maxReceived {
		r.Refuse(errLoop)
		return
	}
	if h.smtpAPI != nil {
		if err := r.summary.readSMTPAPI(h.smtpAPI.value(), r.Envelope.Recipients); err != nil {
			r.Refuse(err)
			return
		}
	}
	r.put(r.added(&h))
	for _, run := range h.keep {
		r.put(run)
	}
	if len(h.rest) > 0 {
		// The sender has forgotten the empty line before the body.
		r.put([]byte("\r\n"))
	}
	r.put(head[end-len(h.rest):])
}

// added makes the fields that the relay adds (RFC 5321 §4.4, RFC 6409 §8).
func (r *Rewriter) added(h *header) []byte {
	e := &r.Envelope
	b := e.received(make([]byte, 0, 512))
	made := "<" + e.ID + "@" + e.Hostname + ">"
	r.summary.MessageID = smtpID(h.messageID, made)
	if !h.hasID {
		b = appendWords(b, "Message-ID: ", made, "\r\n")
	}
	if !h.hasDate {
		b = appendWords(e.At.AppendFormat(appendWords(b, "Date: "), time.RFC1123Z), "\r\n")
	}
	return b
}

// buffers gather small writes. A Sink may be a file, and content that was mended
// or has many stuffed dots comes in pieces of a line each.
var buffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 4<<10) }}

// put writes to the sink, now or in End.
func (r *Rewriter) put(b []byte) {
	if r.err != nil {
		return
	}
	if len(b) > r.out.Available() {
		_ = r.out.Flush() // so that a large piece is not copied; Write returns its error
	}
	if _, err := r.out.Write(b); err != nil {
		r.Refuse(err)
	}
}

// End is called after the last piece. doubtful is Undot's. If it returns no error,
// all content is written.
func (r *Rewriter) End(doubtful bool) (Summary, error) {
	r.lines.end(r.take)
	r.scan.end()
	if fault := r.newlineFault(); fault != nil {
		r.Refuse(fault)
	}
	if doubtful {
		r.Refuse(errDoubtfulEnd)
	}
	if r.scan.endLike {
		r.Refuse(errEndLike)
	}
	if !r.inBody && r.err == nil {
		r.begin(r.head, len(r.head)) // all header, no body
	}
	if r.size > 0 && r.last != '\n' {
		// BDAT may end without a line end, DATA cannot (RFC 3030 §2).
		r.put(lineEnd)
	}
	r.flush()
	r.summary.EightBit = r.scan.eightBit
	if !r.summary.repeatable(len(r.Envelope.Recipients)) {
		r.Refuse(errRepeated)
	}
	return r.summary, r.err
}

// flush writes what the buffer has, and gives the buffer back.
func (r *Rewriter) flush() {
	if r.out == nil {
		return
	}
	if r.err == nil {
		if err := r.out.Flush(); err != nil {
			r.Refuse(err)
		}
	}
	r.out.Reset(nil)
	buffers.Put(r.out)
	r.out = nil
}

// newlineFault is the Fault of a line end that is refused, nil if there was none.
func (r *Rewriter) newlineFault() error {
	switch {
	case !r.RefuseBareNewlines:
	case r.lines.bareCR:
		return errBareCR
	case r.lines.bareLF:
		return errBareLF
	}
	return nil
}
