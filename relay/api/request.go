package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

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
	body, err := io.ReadAll(http.MaxBytesReader(r.w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, refused(http.StatusRequestEntityTooLarge)
	case err != nil:
		return nil, notJSON() // cut short, or not in the announced coding
	}
	return parseObject(body)
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
