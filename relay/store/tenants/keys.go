package tenants

import (
	"cmp"
	"context"
	"slices"

	"tlsrelay/policy/account"
	"tlsrelay/relay/store/layout"
)

// Key finds a key by the public part of its secret.
func (t *Tenants) Key(_ context.Context, id string) (account.Key, error) {
	t.mem.mu.RLock()
	defer t.mem.mu.RUnlock()
	k, ok := t.mem.keys[id]
	if !ok {
		return k, account.ErrNotFound
	}
	return copyKey(k), nil
}

// copyKey keeps the caller's hands off the memory.
func copyKey(k account.Key) account.Key {
	k.Scopes = slices.Clone(k.Scopes)
	return k
}

// Keys lists an account's keys in the order they were made.
func (t *Tenants) Keys(_ context.Context, owner account.ID) ([]account.Key, error) {
	t.mem.mu.RLock()
	defer t.mem.mu.RUnlock()
	var keys []account.Key
	for id := range t.mem.keysOf[owner] {
		keys = append(keys, copyKey(t.mem.keys[id]))
	}
	slices.SortFunc(keys, func(a, b account.Key) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return keys, nil
}

// PutKey stores a new key; account.ErrNotFound when its owner is gone,
// account.ErrTooMany when the owner has account.MaxKeys.
func (t *Tenants) PutKey(ctx context.Context, k account.Key) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	if _, err := t.Account(ctx, k.Owner); err != nil {
		return err
	}
	t.mem.mu.RLock()
	full := len(t.mem.keysOf[k.Owner]) >= account.MaxKeys && !t.mem.keysOf[k.Owner][k.ID]
	t.mem.mu.RUnlock()
	if full {
		return account.ErrTooMany
	}
	k = copyKey(k)
	return t.put(layout.KeyKey(k.ID), k, func(m *memory) { m.putKey(k) })
}

// UpdateKey changes a key and returns it as stored.
func (t *Tenants) UpdateKey(ctx context.Context, id string, change func(*account.Key) error) (account.Key, error) {
	t.writing.Lock()
	defer t.writing.Unlock()
	was, err := t.Key(ctx, id)
	if err != nil {
		return account.Key{}, err
	}
	k := was
	if err := change(&k); err != nil {
		return account.Key{}, err
	}
	k.ID, k.Hash, k.Owner = was.ID, was.Hash, was.Owner
	k = copyKey(k)
	if err := t.put(layout.KeyKey(id), k, func(m *memory) { m.putKey(k) }); err != nil {
		return account.Key{}, err
	}
	return copyKey(k), nil
}

// DeleteKey revokes a key.
func (t *Tenants) DeleteKey(ctx context.Context, id string) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	if _, err := t.Key(ctx, id); err != nil {
		return err
	}
	return t.change(
		func(b Batch) error { return b.Delete(layout.KeyKey(id)) },
		func(m *memory) { m.deleteKey(id) },
	)
}
