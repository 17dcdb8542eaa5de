// Package webhook tells the accounts' endpoints what happened. Each endpoint has a loop
// of its own, which takes events from the outbox that relay/store fills, signs a batch
// of them and posts it until the endpoint answers 2xx or 24 hours are over.
//
//	endpoint.go   Endpoint: where an account wants its events, and which;
//	              Outbox: where they wait
//	sender.go     Sender: starts a loop for every endpoint with something
//	              waiting, and bounds their posts together
//	loop.go       one endpoint: gather a batch, post, remove what was taken
//	plan.go       decides what is sent next, and what an answer means for it (pure)
//	post.go       one POST of one batch, and the HTTP client that all share
//	target.go     which URLs may be posted to
//	lost.go       what was given up, counted until the log tells of it
//	sign.go       the signature
//	oauth.go      the access token of endpoints that want one
//	sample.go     the test call: sample events, once
//
// Delivery is at least once: a batch whose answer was lost is posted again, with the
// same event ids.
package webhook

import (
	"context"
	"errors"
	"math"
	"time"

	"tlsrelay/events"
)

// MaxPerAccount is how many webhooks an account may have, as at SendGrid.
const MaxPerAccount = 5

// Endpoint is one webhook of an account.
type Endpoint struct {
	ID           string `json:"id"` // UUID
	Account      string `json:"account"`
	URL          string `json:"url"`
	Enabled      bool   `json:"enabled"`
	FriendlyName string `json:"friendly_name,omitempty"`

	Processed bool `json:"processed"`
	Deferred  bool `json:"deferred"`
	Delivered bool `json:"delivered"`
	Bounce    bool `json:"bounce"` // blocks as well
	// Other holds the switches that this relay makes no events for (open,
	// click, dropped, …), stored and echoed.
	Other map[string]bool `json:"other,omitempty"`

	OAuthClientID     string `json:"oauth_client_id,omitempty"`
	OAuthClientSecret string `json:"oauth_client_secret,omitempty"` // write-only
	OAuthTokenURL     string `json:"oauth_token_url,omitempty"`

	// SigningKey is the ECDSA P-256 private key in PKCS #8 DER; nil: unsigned.
	SigningKey []byte `json:"signing_key,omitempty"`

	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
}

// Wants reports whether the endpoint wants events of kind k.
func (e Endpoint) Wants(k events.Kind) bool {
	if !e.Enabled {
		return false
	}
	switch k {
	case events.Processed:
		return e.Processed
	case events.Deferred:
		return e.Deferred
	case events.Delivered:
		return e.Delivered
	case events.Bounce:
		return e.Bounce
	}
	return false
}

// Errors of a Store; callers match them with errors.Is.
var (
	// ErrNotFound is the error of an endpoint that the account does not have.
	ErrNotFound = errors.New("webhook: no such endpoint")
	// ErrTooMany is the error of one endpoint more than MaxPerAccount.
	ErrTooMany = errors.New("webhook: the account has as many endpoints as it may have")
)

// URLTakenError is the error of an endpoint with the URL of another one.
type URLTakenError struct{ ID string } // of the other one

func (e URLTakenError) Error() string { return "webhook: endpoint " + e.ID + " has this URL" }

// Fits reports whether an account with the endpoints all may have e beside them, or
// in place of the one with its id: ErrTooMany or a URLTakenError when it may not.
func Fits(all []Endpoint, e Endpoint) error {
	others, taken := 0, error(nil)
	for _, o := range all {
		if o.ID == e.ID {
			continue
		}
		if others++; o.URL == e.URL {
			taken = URLTakenError{o.ID}
		}
	}
	if others == len(all) && others >= MaxPerAccount { // e is new
		return ErrTooMany
	}
	return taken
}

// Row is one event waiting for one endpoint.
type Row struct {
	Seq    uint64    // grows in the order of commits
	At     time.Time // when the event happened
	Object []byte    // its wire form, one JSON object (Event.AppendJSON)
}

// Span is the rows of one endpoint from First to Last, both included.
type Span struct{ First, Last uint64 }

// From is the rows from seq on, those that are still to come included.
func From(seq uint64) Span { return Span{seq, math.MaxUint64} }

// Outbox is where events wait. relay/store implements it. A row comes into it with the
// commit of the state that it reports, and stays until it is removed. The oldest rows of
// an account are given up when too many of it wait. Once Rows has returned a row, it
// returns no new row with a lower number.
type Outbox interface {
	// Endpoint finds an endpoint by id; ok is false when it was deleted.
	Endpoint(ctx context.Context, id string) (e Endpoint, ok bool, err error)
	// Pending lists the ids of endpoints with rows.
	Pending(ctx context.Context) ([]string, error)
	// Rows gives the oldest rows of an endpoint within s, at most maxBytes of
	// objects (but at least one row), and only rows whose state is on stable
	// storage.
	Rows(ctx context.Context, endpoint string, s Span, maxBytes int) ([]Row, error)
	// Remove removes the rows within s, and no others.
	Remove(ctx context.Context, endpoint string, s Span) error
	// Wake has f called with the id of an endpoint whenever Rows can return new rows of
	// it. f must not block.
	Wake(f func(endpoint string))
	// Shed is told when events of an account were given up because more of them
	// waited than may: how many, one for each endpoint that wanted it, and when the
	// oldest happened. The function must not block.
	Shed(f func(account string, events int, oldest time.Time))
}

// Store keeps the endpoints of the accounts. relay/store implements it.
type Store interface {
	// Endpoints lists an account's endpoints, oldest first.
	Endpoints(ctx context.Context, account string) ([]Endpoint, error)
	// ChangeEndpoint stores an endpoint, new or changed, and returns it: change is
	// called with all endpoints of the account, oldest first, alone, and says which one
	// to store, unless it returns an error. Nothing is stored that does not fit (Fits),
	// and nothing for an account that is gone.
	ChangeEndpoint(ctx context.Context, account string, change func(all []Endpoint) (Endpoint, error)) (Endpoint, error)
	// DeleteEndpoint removes an endpoint and what waits for it; ErrNotFound
	// when the account has none of that id.
	DeleteEndpoint(ctx context.Context, account, id string) error
}
