package bounce

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"tlsrelay/relay"
)

// How much of the original goes back: the whole of it up to these sizes, else
// its headers, up to theirs.
const (
	maxDefault = 64 << 10 // RET was not given
	maxFull    = 4 << 20  // RET=FULL
	maxHeader  = 64 << 10
)

type returned struct {
	part
	full bool
}

// original gives what goes back of the original. ok is false when there is
// nothing to return.
func original(m relay.Message, n relay.Notice, body relay.Body, utf8 bool) (r returned, ok bool) {
	if body == nil {
		return returned{}, false
	}
	full := returnsFull(m, n, body.Size())
	limit := int64(maxHeader)
	if full {
		limit = body.Size()
	}
	content, err := io.ReadAll(io.LimitReader(body.NewReader(), limit))
	if err != nil && len(content) == 0 {
		return returned{}, false
	}
	if err != nil || !full {
		full = false
		content = headerOf(content)
	}
	return returned{part{fieldsFor(full, utf8), endLine(content)}, full}, true
}

// endLine ends a last line that has no end.
func endLine(content []byte) []byte {
	if bytes.HasSuffix(content, []byte("\r\n")) {
		return content
	}
	return append(content, "\r\n"...)
}

// returnsFull says whether the body may go along. A TLS demand on the message
// forbids it, for the report may travel in clear (RFC 8689 §5 says so for
// REQUIRETLS), and only a failure needs it (RFC 3461 §6.2).
func returnsFull(m relay.Message, n relay.Notice, size int64) bool {
	if n.HeadersOnly || m.RequireTLS || !has(n, relay.ActionFailed) {
		return false
	}
	switch m.Return {
	case relay.ReturnHeaders:
		return false
	case relay.ReturnFull:
		return size <= maxFull
	}
	return size <= maxDefault
}

// headerOf cuts content after its header; a header that was cut short itself
// ends after its last whole field.
func headerOf(content []byte) []byte {
	if bytes.HasPrefix(content, []byte("\r\n")) {
		return nil
	}
	if i := bytes.Index(content, []byte("\r\n\r\n")); i >= 0 {
		return content[:i+2]
	}
	if len(content) < maxHeader {
		return content
	}
	for end := len(content); end > 0; {
		i := bytes.LastIndex(content[:end], []byte("\r\n"))
		if i < 0 {
			return nil
		}
		if next := i + 2; next < len(content) && content[next] != ' ' && content[next] != '\t' {
			return content[:next]
		}
		end = i
	}
	return nil
}

func fieldsFor(full, utf8 bool) string {
	switch {
	case full && utf8:
		return "Content-Description: Undelivered message\r\nContent-Type: message/global\r\n"
	case full:
		return "Content-Description: Undelivered message\r\nContent-Type: message/rfc822\r\n"
	case utf8:
		return "Content-Description: Headers of the message\r\nContent-Type: message/global-headers\r\n"
	}
	return "Content-Description: Headers of the message\r\nContent-Type: text/rfc822-headers\r\n"
}

// withoutContent is what [WithoutContent] makes of a report.
type withoutContent struct{ *bytes.Reader }

func (w withoutContent) NewReader() io.Reader {
	r := *w.Reader
	r.Seek(0, io.SeekStart)
	return &r
}

func (w withoutContent) Close() error { return nil }

// WithoutContent gives a report as [Write] makes it without the original's content:
// its headers only go back, as if something had been demanded of it when the report
// was written. It fails for what is no such report.
func WithoutContent(report relay.Body) (relay.Body, error) {
	content, err := io.ReadAll(report.NewReader())
	if err != nil {
		return nil, err
	}
	header, _, ok := bytes.Cut(content, []byte("\r\n\r\n"))
	_, boundary, named := bytes.Cut(header, []byte("\r\n boundary=\""))
	boundary, _, closed := bytes.Cut(boundary, []byte("\""))
	if !ok || !named || !closed || len(boundary) == 0 {
		return nil, errNoReport
	}
	delimiter := slices.Concat([]byte("\r\n--"), boundary)
	parts := bytes.Split(content, delimiter)
	for i, p := range parts {
		if bytes.HasPrefix(p, []byte("\r\nContent-Description: Notification\r\n")) {
			parts[i] = bytes.Replace(p, []byte(fold("", "", isAttached)), []byte(fold("", "", isKeptBack)), 1)
		}
		for _, utf8 := range []bool{false, true} {
			if fields := "\r\n" + fieldsFor(true, utf8); bytes.HasPrefix(p, []byte(fields)) {
				_, original, _ := bytes.Cut(p, []byte("\r\n\r\n"))
				part := slices.Concat([]byte("\r\n"+fieldsFor(false, utf8)), p[len(fields):len(p)-len(original)], endLine(headerOf(original)))
				parts[i] = part
			}
		}
	}
	return withoutContent{bytes.NewReader(bytes.Join(parts, delimiter))}, nil
}

// errNoReport is the error of a message that Write has not made.
var errNoReport = errors.New("bounce: not a report of this relay")
