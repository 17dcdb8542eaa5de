package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
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
	smallBody  = 8 << 10  // settings and the like
	mediumBody = 64 << 10 // lists of scopes, of which there are some hundred, and the like
	largeBody  = 1 << 20  // lists of blocks
)

// Small is a call that takes a JSON object of at most smallBody octets.
func Small(call func(*Request, *Object) (any, error)) Call { return withBody(smallBody, "", call) }

// Medium is a call that takes a JSON object of at most mediumBody octets.
func Medium(call func(*Request, *Object) (any, error)) Call { return withBody(mediumBody, "", call) }

// Large is a call that takes a JSON object of at most largeBody octets.
func Large(call func(*Request, *Object) (any, error)) Call { return withBody(largeBody, "", call) }

// List is Medium for an object, or the bare list of its one field.
func List(field string, call func(*Request, *Object) (any, error)) Call {
	return withBody(mediumBody, field, call)
}

func withBody(limit int64, field string, call func(*Request, *Object) (any, error)) Call {
	return func(r *Request) (any, error) {
		o, err := r.object(limit, field)
		if err != nil {
			return nil, err
		}
		return call(r, o)
	}
}

// object reads the body, a JSON object of at most limit octets, or the bare list of
// its one field where that has a name. The content type is not looked at: clients omit
// it and say wrong ones.
func (r *Request) object(limit int64, field string) (*Object, error) {
	body, err := r.body(limit)
	if err != nil {
		return nil, err
	}
	if list := bytes.TrimSpace(body); field != "" && bytes.HasPrefix(list, []byte("[")) && json.Valid(list) {
		return &Object{raw: map[string]json.RawMessage{field: list}}, nil
	}
	o, err := ParseObject(body)
	if err == nil && r.route.Scope == Operator {
		err = known(o.raw, r.route.Params)
	}
	return o, err
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
// take, and one with a body that takes no parameter at all. Only reads take parameters
// in the query: what is to be dropped must not stand where nobody looks.
func (r *Request) onlyKnown() error {
	if r.route.Scope != Operator {
		return nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return InvalidField("", "the query is malformed")
	}
	var takes []string
	if r.route.Method == http.MethodGet {
		takes = r.route.Params
	}
	if err := known(query, takes); err != nil {
		return err
	}
	for name, values := range query {
		if len(values) > 1 {
			return InvalidField(name, name+" is there more than once")
		}
	}
	if len(r.route.Params) == 0 && r.ContentLength != 0 {
		_, err = r.object(smallBody, "")
	}
	return err
}

// known refuses parameters that a call does not take, each by its name.
func known[V any](given map[string]V, takes []string) error {
	var wrong []FieldFault
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(takes, name) {
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
