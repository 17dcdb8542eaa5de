package account

import (
	"context"
	"errors"
	"time"

	"tlsrelay/policy"
	"tlsrelay/policy/domain"
)

// Override is an account's rule for one recipient domain, beside its own
// settings: the stricter of the two wins on each axis (policy.Sender.Demands).
type Override struct {
	Account  ID              `json:"account"`
	Domain   domain.Name     `json:"domain"`
	Settings policy.Settings `json:"settings"`
	// Expires is when the rule ends by itself; zero: never.
	Expires time.Time `json:"expires,omitzero"`
	Reason  string    `json:"reason,omitempty"` // why it was made, for people
	Owner   string    `json:"owner,omitempty"`  // who asked for it, for people
	Updated time.Time `json:"updated"`
}

// InForce reports whether o has not expired at now.
func (o Override) InForce(now time.Time) bool {
	return o.Expires.IsZero() || now.Before(o.Expires)
}

// SenderTo is [Sender] with the account's rule for the destination, where one
// is in force at now. An address literal has no rule of its own.
func SenderTo(ctx context.Context, s interface {
	Store
	OverrideStore
}, id ID, destination string, now time.Time) (policy.Sender, error) {
	sender, err := Sender(ctx, s, id)
	if err != nil {
		return sender, err
	}
	name, err := domain.Parse(destination)
	if err != nil {
		return sender, nil
	}
	o, err := s.Override(ctx, id, name)
	switch {
	case errors.Is(err, ErrNotFound):
		return sender, nil
	case err != nil:
		return policy.Sender{}, err
	}
	if o.InForce(now) {
		sender.Override = &o.Settings
	}
	return sender, nil
}

// OverrideStore keeps the rules for recipient domains, expired ones too: they
// go when they are deleted. relay/store implements it.
type OverrideStore interface {
	// Override finds a rule; ErrNotFound when there is none.
	Override(ctx context.Context, who ID, d domain.Name) (Override, error)
	// Overrides lists an account's rules by domain.
	Overrides(ctx context.Context, who ID) ([]Override, error)
	// PutOverride stores a rule, new or changed, durably; ErrTooMany when it is new
	// and there is no room for it (OverridesFull).
	PutOverride(ctx context.Context, o Override) error
	// DeleteOverride removes a rule; ErrNotFound when there is none.
	DeleteOverride(ctx context.Context, who ID, d domain.Name) error
}
