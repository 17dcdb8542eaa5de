package tenants

import (
	"cmp"
	"context"
	"slices"

	"tlsrelay/policy/account"
	"tlsrelay/policy/domain"
	"tlsrelay/relay/store/layout"
)

// overrideID names an override.
type overrideID struct {
	who    account.ID
	domain domain.Name
}

func idOfOverride(o account.Override) overrideID { return overrideID{o.Account, o.Domain} }

func (id overrideID) key() []byte {
	return layout.ScopedKey(layout.Overrides, string(id.who), id.domain.String())
}

// Override finds an account's rule for a recipient domain.
func (t *Tenants) Override(_ context.Context, who account.ID, d domain.Name) (account.Override, error) {
	t.mem.mu.RLock()
	defer t.mem.mu.RUnlock()
	o, ok := t.mem.overrides[who][d]
	if !ok {
		return o, account.ErrNotFound
	}
	return o, nil
}

// Overrides lists an account's rules by domain.
func (t *Tenants) Overrides(_ context.Context, who account.ID) ([]account.Override, error) {
	t.mem.mu.RLock()
	defer t.mem.mu.RUnlock()
	var all []account.Override
	for _, o := range t.mem.overrides[who] {
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b account.Override) int {
		return cmp.Compare(a.Domain.String(), b.Domain.String())
	})
	return all, nil
}

// putOverride adds a rule, or replaces it.
func (m *memory) putOverride(o account.Override) {
	if m.overrides[o.Account] == nil {
		m.overrides[o.Account] = make(map[domain.Name]account.Override)
	}
	was := len(m.overrides[o.Account])
	m.overrides[o.Account][o.Domain] = o
	m.overrideCount += len(m.overrides[o.Account]) - was
}

// deleteOverride removes a rule that is there.
func (m *memory) deleteOverride(who account.ID, d domain.Name) {
	delete(m.overrides[who], d)
	m.overrideCount--
}

// PutOverride stores a rule; account.ErrNotFound when its account is gone,
// account.ErrTooMany when the rule is new and there is no room for it.
func (t *Tenants) PutOverride(ctx context.Context, o account.Override) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	if _, err := t.Account(ctx, o.Account); err != nil {
		return err
	}
	t.mem.mu.RLock()
	own := t.mem.overrides[o.Account]
	_, known := own[o.Domain]
	full := !known && account.OverridesFull(len(own), t.mem.overrideCount)
	t.mem.mu.RUnlock()
	if full {
		return account.ErrTooMany
	}
	return t.put(idOfOverride(o).key(), o, func(m *memory) { m.putOverride(o) })
}

// DeleteOverride removes a rule.
func (t *Tenants) DeleteOverride(ctx context.Context, who account.ID, d domain.Name) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	if _, err := t.Override(ctx, who, d); err != nil {
		return err
	}
	id := overrideID{who, d}
	return t.change(
		func(b Batch) error { return b.Delete(id.key()) },
		func(m *memory) { m.deleteOverride(who, d) },
	)
}
