// Package account holds who uses the relay and what each may do: the parent
// account, its subusers and customer accounts, and the API keys that open both
// the API and submission. This package decides; relay/store keeps what it decides
// about, relay/api and relay/submission ask.
//
//	account.go       Account, and Store, which relay/store implements
//	key.go           Key: its secret, its hash
//	scope.go         Scope: what a key may do
//	foreign.go       scopes of SendGrid that keys may have and that open nothing
//	authenticate.go  Authenticate: secret -> account and key; Sender: account -> what it demands
//	override.go      Override: an account's rule for one recipient domain
package account

import (
	"context"
	"errors"
	"time"

	"tlsrelay/policy"
)

// ID names an account for good; names may be reused, ids never are.
type ID string

// Parent is the id of the one parent account, made at first start.
const Parent ID = "1"

// Kind is what sort of account it is.
type Kind string

// The kinds of account.
const (
	KindParent   Kind = "parent"
	KindSubuser  Kind = "subuser"  // addressed by username
	KindCustomer Kind = "customer" // addressed as "account-id ID"
)

// Account is one account and its TLS settings.
type Account struct {
	ID       ID              `json:"id"` // decimal; the numeric id of the API
	Kind     Kind            `json:"kind"`
	Username string          `json:"username"`           // unique, no spaces; the customer's ID for a customer
	Email    string          `json:"email,omitempty"`    // as given at creation
	Disabled bool            `json:"disabled,omitempty"` // neither API on its behalf nor submission, and its queue is held
	Settings policy.Settings `json:"settings"`
	// MaxRecipientsPerHour is how many recipients it may submit mail for in an hour;
	// 0: as many as it likes.
	MaxRecipientsPerHour int       `json:"max_recipients_per_hour,omitempty"`
	Created              time.Time `json:"created"`
}

// Errors that a Store returns; callers match them with errors.Is.
var (
	ErrNotFound = errors.New("account: not found")
	ErrExists   = errors.New("account: exists already")

	// ErrDisabled is the error of what a disabled account asks for.
	ErrDisabled = errors.New("account: disabled")
)

// Store keeps accounts and keys. Every write is durable when it returns and
// visible to every later read. relay/store implements it.
type Store interface {
	// Account finds an account by id.
	Account(ctx context.Context, id ID) (Account, error)
	// AccountNamed finds a subuser or the parent by username, or a customer
	// by its own id.
	AccountNamed(ctx context.Context, kind Kind, name string) (Account, error)
	// Accounts lists all accounts in the order they were made.
	Accounts(ctx context.Context) ([]Account, error)
	// CreateAccount stores a new account under a fresh ID and returns it;
	// ErrExists when the kind has that username already, ErrTooMany when there are
	// MaxAccounts.
	CreateAccount(ctx context.Context, a Account) (Account, error)
	// UpdateAccount changes one account: change is called with the stored
	// account, alone, and its result stored unless it returns an error.
	UpdateAccount(ctx context.Context, id ID, change func(*Account) error) (Account, error)
	// DeleteAccount removes an account and its keys and webhooks.
	DeleteAccount(ctx context.Context, id ID) error

	// Key finds a key by the public part of its secret.
	Key(ctx context.Context, id string) (Key, error)
	// Keys lists an account's keys in the order they were made.
	Keys(ctx context.Context, owner ID) ([]Key, error)
	// PutKey stores a new key; ErrTooMany when its owner has MaxKeys.
	PutKey(ctx context.Context, k Key) error
	// UpdateKey changes the name or the scopes of a key: change is called with
	// the stored key, alone, and its result stored unless it returns an error.
	// ErrNotFound when there is no such key, or no longer: a key that somebody
	// revokes meanwhile does not come back.
	UpdateKey(ctx context.Context, id string, change func(*Key) error) (Key, error)
	// DeleteKey revokes a key; ErrNotFound when there is none.
	DeleteKey(ctx context.Context, id string) error
}
