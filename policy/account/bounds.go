package account

import "errors"

// The bounds of what there may be of a kind. The store keeps them, whoever writes.
const (
	// MaxAccounts is how many subusers and customer accounts there may be, together.
	MaxAccounts = 100_000
	// MaxKeys is how many API keys an account may have, as at SendGrid.
	MaxKeys = 100
	// MaxOverrides is how many rules for recipient domains an account may have,
	// expired ones too. All rules are in memory, each with at most 1.5 KB.
	MaxOverrides = 10_000
	// MaxOverridesOfAll is how many rules all accounts may have together. Beyond it
	// an account has only SureOverrides, which nobody can take from it.
	MaxOverridesOfAll = 1_000_000
	SureOverrides     = 100
)

// ErrTooMany is the error of a write that would go beyond a bound.
var ErrTooMany = errors.New("account: as many as there may be")

// OverridesFull reports whether an account that has own rules may have no more, where
// all accounts have all.
func OverridesFull(own, all int) bool {
	return own >= MaxOverrides || own >= SureOverrides && all >= MaxOverridesOfAll
}
