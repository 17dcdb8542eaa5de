package account

import "errors"

// The bounds of what there may be of a kind. The store keeps them, whoever writes.
const (
	// MaxAccounts is how many subusers and customer accounts there may be, together.
	MaxAccounts = 100_000
	// MaxKeys is how many API keys an account may have, as at SendGrid.
	MaxKeys = 100
	// MaxOverrides is how many rules for recipient domains an account may have,
	// expired ones too: at most 15 MB of memory.
	MaxOverrides = 10_000
)

// ErrTooMany is the error of a write that would go beyond a bound.
var ErrTooMany = errors.New("account: as many as there may be")
