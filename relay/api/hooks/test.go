package hooks

import (
	"context"
	"errors"
	"slices"

	"tlsrelay/events/webhook"
	"tlsrelay/relay/api/rest"
)

// Tester posts a batch of sample events to an endpoint, signed and authorized
// as it says, and ends with ctx. Its error is for the log. webhook.Sender implements it.
type Tester interface {
	Test(ctx context.Context, e webhook.Endpoint) error
}

// Test posts sample events to a URL, in the name of a stored webhook where id says so.
// Only the log hears what the URL's host answered: a caller could use the relay to look
// around its network.
func (s Calls) Test(r *rest.Request, o *rest.Object) (any, error) {
	e, err := s.target(r, o)
	if err != nil {
		return nil, err
	}
	err = s.Tests.Within(r, func(ctx context.Context) error { return s.Tester.Test(ctx, e) })
	if f := (*rest.Fault)(nil); errors.As(err, &f) {
		return nil, f
	}
	if err != nil {
		r.LogFailure("a webhook test failed", err)
		return nil, rest.InvalidField("url", "the test events were not accepted at that url")
	}
	return nil, nil
}

// target makes the endpoint to test. A stored OAuth secret is used only
// with the client id and the token URL it was stored with: with another URL,
// the test would give the secret away.
func (s Calls) target(r *rest.Request, o *rest.Object) (webhook.Endpoint, error) {
	e := webhook.Endpoint{Account: string(r.On.ID), Enabled: true}
	o.Require("url")
	var id, secret string
	o.TextOrNull("id", 255, &id)
	o.Text("url", maxURL, &e.URL)
	o.TextOrNull("oauth_client_id", maxOAuth, &e.OAuthClientID)
	o.TextOrNull("oauth_token_url", maxURL, &e.OAuthTokenURL)
	o.TextOrNull("oauth_client_secret", maxOAuth, &secret)
	if err := o.Err(); err != nil {
		return e, err
	}
	all, err := s.Store.Endpoints(r.Context(), e.Account)
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
	check(o, e, s.AllowInsecure)
	switch err := o.Err(); {
	case err != nil:
		return e, err
	case id != "" && i < 0:
		return e, NotFound()
	}
	return e, nil
}
