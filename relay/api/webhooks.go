package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"

	"go.uber.org/zap"

	"tlsrelay/events/webhook"
)

// noSuchWebhook is SendGrid's own text for an unknown id.
func noSuchWebhook() *fault {
	const text = "Invalid id provided."
	return worded(http.StatusNotFound, text, struct {
		Message string `json:"message"`
	}{text})
}

func (s *server) listWebhooks(r *request) (any, error) {
	all, err := s.Webhooks.Endpoints(r.Context(), string(r.on.ID))
	if err != nil {
		return nil, err
	}
	views := make([]webhookView, len(all))
	for i, e := range all {
		if views[i], err = viewWebhook(r, e); err != nil {
			return nil, err
		}
	}
	return struct {
		MaxAllowed int           `json:"max_allowed"`
		Webhooks   []webhookView `json:"webhooks"`
	}{maxWebhooks, views}, nil
}

func (s *server) getWebhook(r *request) (any, error) {
	e, err := s.findWebhook(r)
	if err != nil {
		return nil, err
	}
	return viewWebhook(r, e)
}

// getOldestWebhook is the form without an id. Clients of it know no webhook
// that is not there, only one that is not set up: they get an empty one.
func (s *server) getOldestWebhook(r *request) (any, error) {
	e, _, err := s.oldestWebhook(r)
	if err != nil {
		return nil, err
	}
	return viewWebhook(r, e)
}

func (s *server) createWebhook(r *request) (any, error) {
	o, err := r.object(smallBody)
	if err != nil {
		return nil, err
	}
	return s.viewChanged(r, func(all []webhook.Endpoint) (webhook.Endpoint, error) { return s.newWebhook(o, all) })
}

// patchOldestWebhook makes the webhook when there is none yet: clients of
// the form without an id have no other way to create one.
func (s *server) patchOldestWebhook(r *request) (any, error) {
	o, err := r.object(smallBody)
	if err != nil {
		return nil, err
	}
	return s.viewChanged(r, func(all []webhook.Endpoint) (webhook.Endpoint, error) {
		if len(all) == 0 {
			return s.newWebhook(o, all)
		}
		return s.patched(o, all[0])
	})
}

func (s *server) patchWebhook(r *request) (any, error) {
	o, err := r.object(smallBody)
	if err != nil {
		return nil, err
	}
	return s.viewChanged(r, func(all []webhook.Endpoint) (webhook.Endpoint, error) {
		e, err := webhookWithID(all, r.PathValue("id"))
		if err == nil {
			return s.patched(o, e)
		}
		// An unknown id is told last: what is wrong with the form comes before it.
		if _, bad := s.patched(o, webhook.Endpoint{URL: "https://example.com/"}); bad != nil {
			err = bad
		}
		return e, err
	})
}

// newWebhook reads a new webhook of an account that has all.
func (s *server) newWebhook(o *object, all []webhook.Endpoint) (webhook.Endpoint, error) {
	now := s.Now()
	e := webhook.Endpoint{ID: newUUID(), Created: now, Updated: now}
	if n := len(all); n > 0 && !now.After(all[n-1].Created) {
		// Whatever the clock does, the oldest stays the oldest.
		e.Created = all[n-1].Created.Add(1)
	}
	if !o.has("url") {
		o.refuse("url", "url is required")
	}
	return e, readWebhook(o, &e, s.AllowInsecureWebhooks)
}

// patched reads a change of a webhook.
func (s *server) patched(o *object, e webhook.Endpoint) (webhook.Endpoint, error) {
	e.Updated = s.Now()
	return e, readWebhook(o, &e, s.AllowInsecureWebhooks)
}

func (s *server) viewChanged(r *request, change func([]webhook.Endpoint) (webhook.Endpoint, error)) (any, error) {
	e, err := s.changeWebhook(r, "webhook changed", change)
	if err != nil {
		return nil, err
	}
	return viewWebhook(r, e)
}

// changeWebhook stores the webhook that change makes of those of the account, and
// writes the audit line where it differs from what there was.
func (s *server) changeWebhook(r *request, what string, change func([]webhook.Endpoint) (webhook.Endpoint, error)) (webhook.Endpoint, error) {
	var before any
	var was, asked webhook.Endpoint
	after, err := s.Webhooks.ChangeEndpoint(r.Context(), string(r.on.ID), func(all []webhook.Endpoint) (_ webhook.Endpoint, err error) {
		if asked, err = change(all); err != nil {
			return asked, err
		}
		if was, err = webhookWithID(all, asked.ID); err == nil {
			before = auditedWebhook(was)
		} else {
			what = "webhook created"
		}
		return asked, nil
	})
	var taken webhook.URLTakenError
	switch {
	case errors.Is(err, webhook.ErrTooMany):
		return after, s.atBound(boundWebhooks, invalidField("", "You have reached the maximum number of webhooks."))
	case errors.As(err, &taken):
		text := "Webhook at '" + asked.URL + "' already exists. Please provide a unique URL."
		return after, worded(http.StatusBadRequest, text, struct {
			ID      string `json:"id"`
			Message string `json:"message"`
			URL     string `json:"url"`
		}{taken.ID, text, asked.URL})
	case err != nil:
		return after, err
	}
	if !reflect.DeepEqual(was, after) {
		s.audit(r, what, after.ID, before, auditedWebhook(after))
	}
	return after, nil
}

func (s *server) deleteWebhook(r *request) (any, error) {
	e, err := s.findWebhook(r)
	if err != nil {
		return nil, err
	}
	if err := s.Webhooks.DeleteEndpoint(r.Context(), e.Account, e.ID); err != nil {
		return nil, err
	}
	s.audit(r, "webhook deleted", e.ID, auditedWebhook(e), nil)
	return nil, nil
}

// findWebhook finds the webhook of the path, if it is the account's.
func (s *server) findWebhook(r *request) (webhook.Endpoint, error) {
	all, err := s.Webhooks.Endpoints(r.Context(), string(r.on.ID))
	if err != nil {
		return webhook.Endpoint{}, err
	}
	return webhookWithID(all, r.PathValue("id"))
}

func webhookWithID(all []webhook.Endpoint, id string) (webhook.Endpoint, error) {
	i := slices.IndexFunc(all, func(e webhook.Endpoint) bool { return e.ID == id })
	if i < 0 {
		return webhook.Endpoint{}, noSuchWebhook()
	}
	return all[i], nil
}

func (s *server) oldestWebhook(r *request) (e webhook.Endpoint, ok bool, err error) {
	all, err := s.Webhooks.Endpoints(r.Context(), string(r.on.ID))
	if err != nil || len(all) == 0 {
		return webhook.Endpoint{}, false, err
	}
	return all[0], true, nil
}

// testWebhook posts sample events to a URL, in the name of a stored webhook
// where id says so. What the URL's host answered is for the log only: told to
// the caller, it would let him look around from here.
func (s *server) testWebhook(r *request) (any, error) {
	o, err := r.object(smallBody)
	if err != nil {
		return nil, err
	}
	e, err := s.testTarget(r, o)
	if err != nil {
		return nil, err
	}
	err = s.within(r, &s.tests, boundTests, func(ctx context.Context) error { return s.Tester.Test(ctx, e) })
	if f := (*fault)(nil); errors.As(err, &f) {
		return nil, f
	}
	if err != nil {
		s.Log.Info("a webhook test failed", zap.String("account", string(r.on.ID)),
			zap.String("request_id", r.id), zap.Error(err))
		return nil, invalidField("url", "the test events were not accepted at that url")
	}
	return nil, nil
}

// testTarget makes the endpoint to test. A stored OAuth secret is used only
// with the client id and the token URL it was stored with: with another URL,
// testing would hand the secret out.
func (s *server) testTarget(r *request, o *object) (webhook.Endpoint, error) {
	e := webhook.Endpoint{Account: string(r.on.ID), Enabled: true}
	if !o.has("url") {
		o.refuse("url", "url is required")
	}
	var id, secret string
	o.textOrNull("id", 255, &id)
	o.text("url", maxURL, &e.URL)
	o.textOrNull("oauth_client_id", maxOAuth, &e.OAuthClientID)
	o.textOrNull("oauth_token_url", maxURL, &e.OAuthTokenURL)
	o.textOrNull("oauth_client_secret", maxOAuth, &secret)
	if err := o.err(); err != nil {
		return e, err
	}
	all, err := s.Webhooks.Endpoints(r.Context(), e.Account)
	if err != nil {
		return e, err
	}
	i := slices.IndexFunc(all, func(w webhook.Endpoint) bool { return id != "" && w.ID == id })
	j := slices.IndexFunc(all, func(w webhook.Endpoint) bool {
		return e.OAuthClientID != "" && w.OAuthClientID == e.OAuthClientID && w.OAuthTokenURL == e.OAuthTokenURL
	})
	if i >= 0 {
		e.ID, e.SigningKey = all[i].ID, all[i].SigningKey
	}
	e.OAuthClientSecret = secret
	if secret == "" && j >= 0 {
		e.OAuthClientSecret = all[j].OAuthClientSecret
	}
	checkWebhook(o, e, s.AllowInsecureWebhooks)
	switch err := o.err(); {
	case err != nil:
		return e, err
	case id != "" && i < 0:
		return e, noSuchWebhook()
	}
	return e, nil
}

// newUUID makes a random UUID (RFC 9562 §5.4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails since Go 1.24
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
