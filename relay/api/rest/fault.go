package rest

import (
	"errors"
	"net/http"
	"strings"
)

// Fault is an error that is meant for the client, in every dialect: body under /v3,
// where even the order of keys is SendGrid's, and detail with fields elsewhere.
type Fault struct {
	status int
	body   []byte
	detail string
	fields []FieldFault
	bound  string // counted, where something is at its bound
}

// FieldFault is what is wrong with one field of a request, as an element of
// the errors envelope.
type FieldFault struct {
	Message string  `json:"message"`
	Field   *string `json:"field"`
	Help    *string `json:"help"`
}

func (f *Fault) Error() string { return f.detail }

// Status is the status code of the answer.
func (f *Fault) Status() int { return f.status }

// Fields is what is wrong with the request, field by field; nil where that is not the
// matter.
func (f *Fault) Fields() []FieldFault { return f.fields }

// FaultOf is the fault that a status code stands for by itself. The bodies are
// SendGrid's, byte for byte.
func FaultOf(status int) *Fault {
	f := &Fault{status: status}
	switch status {
	case http.StatusUnauthorized:
		f.detail = "The provided authorization grant is invalid, expired, or revoked"
		f.body = []byte(`{"errors":[{"message":"` + f.detail + `","field":null,"help":null}]}`)
	case http.StatusForbidden:
		f.detail = "access forbidden"
		f.body = []byte(`{"errors":[{"message":"access forbidden","field":null}]}`)
	case http.StatusNotFound:
		f.detail = "not found"
	case http.StatusMethodNotAllowed:
		f.detail = "method not allowed"
	case http.StatusRequestEntityTooLarge:
		f.detail = "content too large"
	case http.StatusTooManyRequests:
		f.detail = "too many requests"
	default:
		f.status, f.detail = http.StatusInternalServerError, "internal server error"
		f.body = []byte(`{"errors":[{"message":"internal server error"}]}`)
	}
	if f.body == nil {
		f.body = []byte(`{"errors":[{"field":null,"message":"` + f.detail + `"}]}`)
	}
	return f
}

// Unauthenticated is the fault of a request that names no key at all.
func Unauthenticated() *Fault {
	return &Fault{
		status: http.StatusUnauthorized,
		detail: "authorization required",
		body:   []byte(`{"errors":[{"field":null,"message":"authorization required"}]}`),
	}
}

// Invalid is a 400 with everything that is wrong.
func Invalid(fields ...FieldFault) *Fault {
	body := encode(map[string]any{"errors": fields})
	return &Fault{status: http.StatusBadRequest, body: body, detail: fields[0].Message, fields: fields}
}

// InvalidField is a 400 about one field; "" is none.
func InvalidField(field, message string) *Fault { return Invalid(AboutField(field, message)) }

// AboutField is what is wrong with one field; "" is none.
func AboutField(field, message string) FieldFault {
	if field == "" {
		return FieldFault{Message: message}
	}
	return FieldFault{Message: message, Field: &field}
}

// Worded is a fault whose one error has the given form under /v3.
func Worded(status int, message string, element any) *Fault {
	return &Fault{status: status, detail: message, body: encode(map[string]any{"errors": []any{element}})}
}

// At says that f stands for something at its bound, and by which name that is counted.
func (f *Fault) At(bound string) *Fault {
	f.bound = bound
	return f
}

// faultOf turns any error into what the client may hear of it. ours is true
// when it is the relay's own trouble, whose text is for the log only.
func (s Surface) faultOf(err error) (f *Fault, ours bool) {
	if errors.As(err, &f) {
		return f, false
	}
	if f = s.Known(err); f != nil {
		return f, false
	}
	return FaultOf(http.StatusInternalServerError), true
}

// Prefixes of the paths that have a dialect of their own.
const (
	OurPrefix      = "/relay/" // problem details (RFC 9457)
	OperatorPrefix = "/admin/" // one text
)

// Problem is the form of errors under OurPrefix (RFC 9457 §3).
type Problem struct {
	Type      string       `json:"type"`
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail"`
	RequestID string       `json:"request_id"`
	Errors    []FieldFault `json:"errors,omitempty"`
}

// encode writes f in the dialect of a path.
func (f *Fault) encode(path, requestID string) (contentType string, body []byte) {
	switch {
	case strings.HasPrefix(path, OurPrefix):
		return "application/problem+json", encode(Problem{
			"about:blank", http.StatusText(f.status), f.status, f.detail, requestID, f.fields,
		})
	case strings.HasPrefix(path, OperatorPrefix):
		return "application/json", indented(oneText{f.text()})
	}
	return "application/json", f.body
}

// text is all that f has to say to a person.
func (f *Fault) text() string {
	switch {
	case f.status == http.StatusInternalServerError:
		return "internal error; the log says more"
	case len(f.fields) == 0:
		return f.detail
	}
	texts := make([]string, len(f.fields))
	for i, field := range f.fields {
		texts[i] = field.Message
	}
	return strings.Join(texts, "; ")
}

// oneText is the form of errors under OperatorPrefix.
type oneText struct {
	Error string `json:"error"`
}
