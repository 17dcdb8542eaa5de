// Package hooks is the webhooks of an account, as the public API has them
// (/v3/user/webhooks/event):
//
//	hooks.go     list, get, create, change, delete
//	form.go      how a webhook is shown, and how its fields are read
//	signing.go   the signature, on or off
//	test.go      sample events, posted once
//
// The forms without an id mean the oldest webhook. The store keeps the rules that
// count (webhook.Fits); events/webhook does the posting.
package hooks

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"

	"tlsrelay/events/webhook"
	"tlsrelay/relay/api/rest"
)

// Bound is the name by which refusals of one webhook more are counted.
const Bound = "webhooks"

// Calls are the calls, and what they ask.
type Calls struct {
	Store         webhook.Store
	Tester        Tester
	Tests         *rest.Slots // of test calls under way
	AllowInsecure bool        // http:// and private addresses are admitted as targets
}

// NotFound is SendGrid's own text for an unknown id.
func NotFound() *rest.Fault {
	const text = "Invalid id provided."
	return rest.Worded(http.StatusNotFound, text, struct {
		Message string `json:"message"`
	}{text})
}

// List answers with all webhooks of the account.
func (s Calls) List(r *rest.Request) (any, error) {
	all, err := s.Store.Endpoints(r.Context(), string(r.On.ID))
	if err != nil {
		return nil, err
	}
	views := make([]settingsView, len(all))
	for i, e := range all {
		if views[i], err = view(r, e); err != nil {
			return nil, err
		}
	}
	return struct {
		MaxAllowed int            `json:"max_allowed"`
		Webhooks   []settingsView `json:"webhooks"`
	}{webhook.MaxPerAccount, views}, nil
}

// Get answers with one webhook.
func (s Calls) Get(r *rest.Request) (any, error) {
	e, err := s.find(r)
	if err != nil {
		return nil, err
	}
	return view(r, e)
}

// Create makes a webhook.
func (s Calls) Create(r *rest.Request, o *rest.Object) (any, error) {
	return s.storeAndView(r, func(all []webhook.Endpoint) (webhook.Endpoint, error) { return s.fresh(r, o, all) })
}

// Patch changes a webhook. Without an id it makes one when there is none yet: clients
// of that form have no other way.
func (s Calls) Patch(r *rest.Request, o *rest.Object) (any, error) {
	return s.storeAndView(r, func(all []webhook.Endpoint) (webhook.Endpoint, error) {
		id := r.PathValue("id")
		if id == "" && len(all) == 0 {
			return s.fresh(r, o, all)
		}
		e, err := pick(all, id)
		if err == nil {
			return s.patched(r, o, e)
		}
		// An unknown id is told last: what is wrong with the form comes before it.
		if _, bad := s.patched(r, o, webhook.Endpoint{URL: "https://example.com/"}); bad != nil {
			err = bad
		}
		return e, err
	})
}

// fresh reads a new webhook of an account that has all.
func (s Calls) fresh(r *rest.Request, o *rest.Object, all []webhook.Endpoint) (webhook.Endpoint, error) {
	now := r.Now()
	e := webhook.Endpoint{ID: newUUID(), Created: now, Updated: now}
	if n := len(all); n > 0 && !now.After(all[n-1].Created) {
		// Whatever the clock does, the oldest stays the oldest.
		e.Created = all[n-1].Created.Add(1)
	}
	o.Require("url")
	err := read(o, &e, s.AllowInsecure)
	return e, err
}

// patched reads a change of a webhook.
func (s Calls) patched(r *rest.Request, o *rest.Object, e webhook.Endpoint) (webhook.Endpoint, error) {
	e.Updated = r.Now()
	err := read(o, &e, s.AllowInsecure)
	return e, err
}

func (s Calls) storeAndView(r *rest.Request, made making) (any, error) {
	e, err := s.store(r, "webhook changed", made)
	if err != nil {
		return nil, err
	}
	return view(r, e)
}

// making makes a webhook, new or changed, of those that the account has.
type making func(all []webhook.Endpoint) (webhook.Endpoint, error)

// store stores what is made, and writes the audit line where that differs from what
// there was.
func (s Calls) store(r *rest.Request, what string, made making) (webhook.Endpoint, error) {
	var before any
	var was, asked webhook.Endpoint
	after, err := s.Store.ChangeEndpoint(r.Context(), string(r.On.ID), func(all []webhook.Endpoint) (_ webhook.Endpoint, err error) {
		if asked, err = made(all); err != nil {
			return asked, err
		}
		if was, err = pick(all, asked.ID); err == nil {
			before = audited(was)
		} else {
			what = "webhook created"
		}
		return asked, nil
	})
	var taken webhook.URLTakenError
	switch {
	case errors.Is(err, webhook.ErrTooMany):
		return after, rest.InvalidField("", "You have reached the maximum number of webhooks.").At(Bound)
	case errors.As(err, &taken):
		text := "Webhook at '" + asked.URL + "' already exists. Please provide a unique URL."
		return after, rest.Worded(http.StatusBadRequest, text, struct {
			ID      string `json:"id"`
			Message string `json:"message"`
			URL     string `json:"url"`
		}{taken.ID, text, asked.URL})
	case err != nil:
		return after, err
	}
	if !reflect.DeepEqual(was, after) {
		r.Audit(what, after.ID, before, audited(after))
	}
	return after, nil
}

// Delete removes a webhook and the events that wait for it.
func (s Calls) Delete(r *rest.Request) (any, error) {
	e, err := s.find(r)
	if err != nil {
		return nil, err
	}
	if err := s.Store.DeleteEndpoint(r.Context(), e.Account, e.ID); err != nil {
		return nil, err
	}
	r.Audit("webhook deleted", e.ID, audited(e), nil)
	return nil, nil
}

// find finds the webhook of the path, if it is the account's. Clients of the form
// without an id do not know that there may be no webhook, only one that is not set up:
// they get an empty one.
func (s Calls) find(r *rest.Request) (webhook.Endpoint, error) {
	all, err := s.Store.Endpoints(r.Context(), string(r.On.ID))
	id := r.PathValue("id")
	if err != nil || id == "" && len(all) == 0 {
		return webhook.Endpoint{}, err
	}
	return pick(all, id)
}

// pick gives the webhook with an id; "" means the oldest.
func pick(all []webhook.Endpoint, id string) (webhook.Endpoint, error) {
	i := slices.IndexFunc(all, func(e webhook.Endpoint) bool { return id == "" || e.ID == id })
	if i < 0 {
		return webhook.Endpoint{}, NotFound()
	}
	return all[i], nil
}

// newUUID makes a random UUID (RFC 9562 §5.4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails since Go 1.24
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
