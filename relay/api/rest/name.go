package rest

import (
	"context"
	"errors"
	"strings"

	"tlsrelay/policy/account"
)

// Named reads the name of an account: a username, or "account-id ID", in any letter
// case and with any number of spaces between.
func Named(text string) (account.Kind, string) {
	const prefix = "account-id"
	text = strings.TrimSpace(text)
	if len(text) > len(prefix) && strings.EqualFold(text[:len(prefix)], prefix) {
		rest := text[len(prefix):]
		if id := strings.TrimLeft(rest, " \t"); len(id) < len(rest) {
			return account.KindCustomer, id
		}
	}
	return account.KindSubuser, text
}

// Find finds an account by the name that an operator gives it: "" or "parent", a
// username, or "account-id ID".
func Find(ctx context.Context, accounts account.Store, name string) (account.Account, error) {
	if name == "" || name == "parent" {
		return accounts.Account(ctx, account.Parent)
	}
	kind, name := Named(name)
	a, err := accounts.AccountNamed(ctx, kind, name)
	if kind == account.KindSubuser && errors.Is(err, account.ErrNotFound) {
		return accounts.AccountNamed(ctx, account.KindParent, name)
	}
	return a, err
}
