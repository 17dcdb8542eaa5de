package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"tlsrelay/policy/account"
)

// Request is one admitted request, as calls get it.
type Request struct {
	*http.Request
	W   http.ResponseWriter // for headers of the answer; calls write nothing
	Now func() time.Time

	Key   account.Key     // an operator's has full access and no id
	Owner account.Account // of the key
	On    account.Account // acted on: the owner, or whom it names

	id    string
	route Route
	log   *zap.Logger
}

// Bounds of request bodies in octets.
const (
	SmallBody = 8 << 10 // settings and the like
	LargeBody = 1 << 20 // lists
)

// Object reads the body, a JSON object of at most limit octets. The content
// type is not looked at: clients omit it and say wrong ones.
func (r *Request) Object(limit int64) (*Object, error) {
	body, err := r.body(limit)
	if err != nil {
		return nil, err
	}
	o, err := ParseObject(body)
	if err != nil {
		return nil, err
	}
	return o, r.known(slices.Sorted(maps.Keys(o.raw)))
}

// ListOrObject reads a body that is an object, or the bare list of its one
// field.
func (r *Request) ListOrObject(limit int64, field string) (*Object, error) {
	body, err := r.body(limit)
	if err != nil {
		return nil, err
	}
	if list := bytes.TrimSpace(body); len(list) > 0 && list[0] == '[' {
		if !json.Valid(list) {
			return nil, notJSON()
		}
		return &Object{raw: map[string]json.RawMessage{field: list}}, nil
	}
	return ParseObject(body)
}

func (r *Request) body(limit int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(r.W, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, FaultOf(http.StatusRequestEntityTooLarge)
	case err != nil:
		return nil, notJSON() // cut short, or not in the announced coding
	}
	return body, nil
}

func notJSON() *Fault { return InvalidField("", "request body is empty or not valid JSON") }

// onlyKnown refuses an operator's call with a parameter in the query that it does not
// take, and one with a body that takes no parameter at all.
func (r *Request) onlyKnown() error {
	if r.route.Scope != Operator {
		return nil
	}
	query := r.URL.Query()
	if err := r.known(slices.Sorted(maps.Keys(query))); err != nil {
		return err
	}
	for name, values := range query {
		if len(values) > 1 {
			return InvalidField(name, name+" is there more than once")
		}
	}
	if len(r.route.Params) == 0 && r.ContentLength != 0 {
		_, err := r.Object(SmallBody)
		return err
	}
	return nil
}

// known refuses parameters that an operator's call does not take.
func (r *Request) known(names []string) error {
	if r.route.Scope != Operator {
		return nil
	}
	var wrong []FieldFault
	for _, name := range names {
		if !slices.Contains(r.route.Params, name) {
			wrong = append(wrong, AboutField(name, "unknown parameter: "+name))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return Invalid(wrong...)
}

// Audit writes the line that says who changed what. before and after are
// views made for it, so that no secret can slip in.
func (r *Request) Audit(change, target string, before, after any) {
	by := "api key"
	if r.route.Scope == Operator {
		by = "operator"
	}
	r.log.Info("audit",
		zap.String("change", change), zap.String("target", target),
		zap.String("by", by), zap.String("key", r.Key.ID), zap.String("key_owner", string(r.Owner.ID)),
		zap.String("account", string(r.On.ID)), zap.String("request_id", r.id),
		zap.Any("before", before), zap.Any("after", after))
}

// LogFailure writes a line about something that failed on the way and is told to the
// client in other words.
func (r *Request) LogFailure(what string, err error) {
	r.log.Info(what, zap.String("account", string(r.On.ID)), zap.String("request_id", r.id), zap.Error(err))
}
