package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"

	"tlsrelay/events"
	"tlsrelay/events/webhook"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

// fault is an error that is meant for the client, in both dialects: body
// under /v3, where even the order of keys is SendGrid's, and detail with
// fields under /relay/v1.
type fault struct {
	status int
	body   []byte
	detail string
	fields []fieldFault
}

// fieldFault is what is wrong with one field of a request, as an element of
// the errors envelope.
type fieldFault struct {
	Message string  `json:"message"`
	Field   *string `json:"field"`
	Help    *string `json:"help"`
}

func (f *fault) Error() string { return f.detail }

// refused is the fault that a status code stands for by itself. The bodies are
// those of contract §2.3, byte for byte.
func refused(status int) *fault {
	f := &fault{status: status}
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

// unauthenticated is the fault of a request that names no key at all.
func unauthenticated() *fault {
	return &fault{
		status: http.StatusUnauthorized,
		detail: "authorization required",
		body:   []byte(`{"errors":[{"field":null,"message":"authorization required"}]}`),
	}
}

// invalid is a 400 with everything that is wrong.
func invalid(fields ...fieldFault) *fault {
	body := encode(map[string]any{"errors": fields})
	return &fault{status: http.StatusBadRequest, body: body, detail: fields[0].Message, fields: fields}
}

// invalidField is a 400 about one field; "" is none.
func invalidField(field, message string) *fault { return invalid(aboutField(field, message)) }

func aboutField(field, message string) fieldFault {
	if field == "" {
		return fieldFault{Message: message}
	}
	return fieldFault{Message: message, Field: &field}
}

// worded is a fault whose one error has the given form under /v3.
func worded(status int, message string, element any) *fault {
	return &fault{status: status, detail: message, body: encode(map[string]any{"errors": []any{element}})}
}

// asFault turns any error into what the client may hear of it. ours is true
// when it is the relay's own trouble, whose text is for the log only.
func asFault(err error) (f *fault, ours bool) {
	switch {
	case errors.As(err, &f):
		return f, false
	case errors.Is(err, webhook.ErrNotFound):
		return noSuchWebhook(), false
	case errors.Is(err, account.ErrNotFound), errors.Is(err, relay.ErrNotFound), errors.Is(err, events.ErrNoBlock):
		return refused(http.StatusNotFound), false
	}
	return refused(http.StatusInternalServerError), true
}

// problem is the form of errors under /relay/v1 (RFC 9457 §3).
type problem struct {
	Type      string       `json:"type"`
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail"`
	RequestID string       `json:"request_id"`
	Errors    []fieldFault `json:"errors,omitempty"`
}

func (f *fault) problem(requestID string) problem {
	return problem{"about:blank", http.StatusText(f.status), f.status, f.detail, requestID, f.fields}
}

// encode writes JSON without the escapes for HTML and without a line end:
// clients compare texts.
func encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // every answer is made of types of ours that encode
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
