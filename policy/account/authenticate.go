package account

import (
	"context"
	"errors"
	"fmt"

	"tlsrelay/policy"
)

// ErrDenied is the one error of every secret that opens nothing: malformed,
// unknown, revoked, wrong, or of a disabled account. Which of these it was is
// nobody's business.
var ErrDenied = errors.New("the provided authorization grant is invalid, expired, or revoked")

// Authenticate finds the key and the account that a secret opens. Errors
// other than [ErrDenied] are the store's and may pass by themselves.
func Authenticate(ctx context.Context, s Store, secret string) (Account, Key, error) {
	id, hash, err := SplitSecret(secret)
	if err != nil {
		return Account{}, Key{}, ErrDenied
	}
	key, err := s.Key(ctx, id)
	if err == nil && !key.Matches(hash) {
		err = ErrNotFound
	}
	var owner Account
	if err == nil {
		owner, err = s.Account(ctx, key.Owner)
	}
	switch {
	case errors.Is(err, ErrNotFound), err == nil && owner.Disabled:
		return Account{}, Key{}, ErrDenied
	case err != nil:
		return Account{}, Key{}, err
	}
	return owner, key, nil
}

// Sender gathers what an account demands of its deliveries: its own settings
// and, where the parent enforces them, the parent's as a floor.
func Sender(ctx context.Context, s Store, id ID) (policy.Sender, error) {
	a, err := s.Account(ctx, id)
	if err != nil {
		return policy.Sender{}, err
	}
	sender := policy.Sender{Account: a.Settings}
	if a.Kind == KindParent {
		return sender, nil
	}
	parent, err := s.Account(ctx, Parent)
	if err != nil {
		// Without its parent the account is still there: no ErrNotFound.
		return policy.Sender{}, fmt.Errorf("account: cannot read the parent: %v", err)
	}
	if parent.Settings.EnforceOnSubusers {
		sender.Parent = &parent.Settings
	}
	return sender, nil
}
