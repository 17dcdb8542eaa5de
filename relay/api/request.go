package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"tlsrelay/policy/account"
)

// request is one admitted request, as handlers get it.
type request struct {
	*http.Request
	w  http.ResponseWriter // for headers of the answer; handlers write nothing
	id string

	key   account.Key
	owner account.Account // of the key
	on    account.Account // acted on: the owner, or its child by on-behalf-of
}

// Bounds of request bodies in octets.
const (
	smallBody = 8 << 10 // settings and the like
	largeBody = 1 << 20 // lists
)

// object reads the body, a JSON object of at most limit octets. The content
// type is not looked at: clients omit it and say wrong ones (contract §1.4).
func (r *request) object(limit int64) (*object, error) {
	body, err := r.body(limit)
	if err != nil {
		return nil, err
	}
	return parseObject(body)
}

// listOrObject reads a body that is an object, or the bare list of its one
// field.
func (r *request) listOrObject(limit int64, field string) (*object, error) {
	body, err := r.body(limit)
	if err != nil {
		return nil, err
	}
	if list := bytes.TrimSpace(body); len(list) > 0 && list[0] == '[' {
		if !json.Valid(list) {
			return nil, notJSON()
		}
		return &object{raw: map[string]json.RawMessage{field: list}}, nil
	}
	return parseObject(body)
}

func (r *request) body(limit int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(r.w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, refused(http.StatusRequestEntityTooLarge)
	case err != nil:
		return nil, notJSON() // cut short, or not in the announced coding
	}
	return body, nil
}

// parseObject reads one JSON object and nothing after it. Of a key that is
// there twice, the last holds.
func parseObject(body []byte) (*object, error) {
	var o object
	if err := json.Unmarshal(body, &o.raw); err != nil || o.raw == nil {
		return nil, notJSON()
	}
	return &o, nil
}

func notJSON() *fault { return invalidField("", "request body is empty or not valid JSON") }

// number reads an integer of the query between low and high; it is def when
// absent.
func (r *request) number(name string, def, low, high int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < low || n > high {
		return 0, invalidField(name, name+" must be an integer from "+
			strconv.FormatInt(low, 10)+" to "+strconv.FormatInt(high, 10))
	}
	return n, nil
}

// lastSecond ends the year 9999: what scripts write for "no end" is beyond it,
// and so is what a time can hold.
const lastSecond = 253402300799

// second reads a time of the query in Unix seconds; zero when absent.
func (r *request) second(name string) (time.Time, error) {
	n, err := r.number(name, -1, 0, math.MaxInt64)
	if err != nil || n < 0 {
		return time.Time{}, err
	}
	return time.Unix(min(n, lastSecond), 0), nil
}

// page reads limit and offset.
func (r *request) page(def, most int64) (limit, offset int, err error) {
	l, err := r.number("limit", def, 1, most)
	if err != nil {
		return 0, 0, err
	}
	o, err := r.number("offset", 0, 0, 1<<31-1)
	return int(l), int(o), err
}

// cut gives the part of a list that a page shows.
func cut[T any](all []T, limit, offset int) []T {
	offset = min(offset, len(all))
	return all[offset:min(offset+limit, len(all))]
}
