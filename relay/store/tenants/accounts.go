package tenants

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"tlsrelay/policy/account"
	"tlsrelay/relay/store/layout"
)

// Account finds an account by id.
func (t *Tenants) Account(_ context.Context, id account.ID) (account.Account, error) {
	t.mem.mu.RLock()
	defer t.mem.mu.RUnlock()
	a, ok := t.mem.accounts[id]
	if !ok {
		return a, account.ErrNotFound
	}
	return a, nil
}

// AccountNamed finds an account by its kind and name.
func (t *Tenants) AccountNamed(_ context.Context, kind account.Kind, name string) (account.Account, error) {
	t.mem.mu.RLock()
	defer t.mem.mu.RUnlock()
	id, ok := t.mem.named[accountName{kind == account.KindCustomer, name}]
	if a := t.mem.accounts[id]; ok && a.Kind == kind {
		return a, nil
	}
	return account.Account{}, account.ErrNotFound
}

// Accounts lists all accounts in the order they were made.
func (t *Tenants) Accounts(context.Context) ([]account.Account, error) {
	t.mem.mu.RLock()
	defer t.mem.mu.RUnlock()
	return slices.SortedFunc(maps.Values(t.mem.accounts), func(a, b account.Account) int {
		return cmp.Compare(number(a.ID), number(b.ID))
	}), nil
}

func number(id account.ID) uint64 {
	n, _ := strconv.ParseUint(string(id), 10, 64) // we made it
	return n
}

// CreateAccount stores a new account under a fresh id: account.Parent for the
// parent, a number never used before for the others. The parent and its
// subusers share their names; a customer's are apart.
func (t *Tenants) CreateAccount(_ context.Context, a account.Account) (account.Account, error) {
	t.writing.Lock()
	defer t.writing.Unlock()
	if err := t.nameFree(a); err != nil {
		return account.Account{}, err
	}
	if a.Kind != account.KindParent && t.countAccounts() > account.MaxAccounts { // with the parent
		return account.Account{}, account.ErrTooMany
	}
	last, err := t.lastAccount()
	if err != nil {
		return account.Account{}, err
	}
	if a.ID = account.Parent; a.Kind != account.KindParent {
		last++
		a.ID = account.ID(strconv.FormatUint(last, 10))
	}
	text, err := layout.Encode(a)
	if err != nil {
		return account.Account{}, err
	}
	err = t.change(func(b Batch) error {
		return errors.Join(
			b.Set([]byte(layout.CounterAccounts), strconv.AppendUint(nil, last, 10)),
			b.Set(layout.AccountKey(a.ID), text),
		)
	}, func(m *memory) { m.putAccount(a) })
	if err != nil {
		return account.Account{}, err
	}
	return a, nil
}

func (t *Tenants) countAccounts() int {
	t.mem.mu.RLock()
	defer t.mem.mu.RUnlock()
	return len(t.mem.accounts)
}

// lastAccount is the highest number given out; the parent's is always taken.
func (t *Tenants) lastAccount() (uint64, error) {
	var v []byte
	found := false
	err := t.db.View(func(r Reader) (err error) {
		v, found, err = r.Get([]byte(layout.CounterAccounts))
		return err
	})
	if err != nil || !found {
		return number(account.Parent), err
	}
	last, err := strconv.ParseUint(string(v), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: counter: %w", layout.ErrRecord, err)
	}
	return max(last, number(account.Parent)), nil
}

// nameFree reports account.ErrExists when another account has a's name, or
// when a would be a second parent.
func (t *Tenants) nameFree(a account.Account) error {
	t.mem.mu.RLock()
	defer t.mem.mu.RUnlock()
	id, taken := t.mem.named[nameOf(a)]
	_, parent := t.mem.accounts[account.Parent]
	if taken && id != a.ID || parent && a.Kind == account.KindParent && a.ID != account.Parent {
		return account.ErrExists
	}
	return nil
}

// UpdateAccount changes one account. Its id and kind stay.
func (t *Tenants) UpdateAccount(ctx context.Context, id account.ID, change func(*account.Account) error) (account.Account, error) {
	t.writing.Lock()
	defer t.writing.Unlock()
	was, err := t.Account(ctx, id)
	if err != nil {
		return account.Account{}, err
	}
	a := was
	if err := change(&a); err != nil {
		return account.Account{}, err
	}
	a.ID, a.Kind = was.ID, was.Kind
	if err := t.nameFree(a); err != nil {
		return account.Account{}, err
	}
	if err := t.put(layout.AccountKey(id), a, func(m *memory) { m.putAccount(a) }); err != nil {
		return account.Account{}, err
	}
	return a, nil
}

// DeleteAccount removes an account with its keys, webhooks and what waits for
// them, overrides and blocks. Its queued mail bounces on the next attempt.
func (t *Tenants) DeleteAccount(ctx context.Context, id account.ID) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	if _, err := t.Account(ctx, id); err != nil {
		return err
	}
	keys, err := t.Keys(ctx, id)
	if err != nil {
		return err
	}
	points, err := t.Endpoints(ctx, string(id))
	if err != nil {
		return err
	}
	var gone []string
	for _, p := range points {
		gone = append(gone, p.ID)
	}
	return t.change(func(b Batch) error {
		errs := []error{b.Delete(layout.AccountKey(id))}
		for _, k := range keys {
			errs = append(errs, b.Delete(layout.KeyKey(k.ID)))
		}
		for _, p := range points {
			errs = append(errs, deleteEndpoint(b, p.ID))
		}
		for _, prefix := range []string{layout.Overrides, layout.Blocks, layout.BlockTimes} {
			own := layout.ScopedKey(prefix, string(id), "")
			errs = append(errs, b.DeleteRange(own, layout.After(own)))
		}
		return errors.Join(errs...)
	}, func(m *memory) {
		delete(m.named, nameOf(m.accounts[id]))
		delete(m.accounts, id)
		for _, k := range keys {
			m.deleteKey(k.ID)
		}
		delete(m.keysOf, id)
		for _, p := range points {
			m.deleteEndpoint(p.ID)
		}
		m.overrideCount -= len(m.overrides[id])
		delete(m.overrides, id)
	}, gone...)
}
