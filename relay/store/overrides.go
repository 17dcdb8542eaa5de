package store

import (
	"cmp"
	"context"
	"slices"

	"github.com/cockroachdb/pebble/v2"

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
func (s *Store) Override(_ context.Context, who account.ID, d domain.Name) (account.Override, error) {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	o, ok := s.mem.overrides[who][d]
	if !ok {
		return o, account.ErrNotFound
	}
	return o, nil
}

// Overrides lists an account's rules by domain.
func (s *Store) Overrides(_ context.Context, who account.ID) ([]account.Override, error) {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	var all []account.Override
	for _, o := range s.mem.overrides[who] {
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
func (s *Store) PutOverride(ctx context.Context, o account.Override) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if _, err := s.Account(ctx, o.Account); err != nil {
		return err
	}
	s.mem.mu.RLock()
	own := s.mem.overrides[o.Account]
	_, known := own[o.Domain]
	full := !known && account.OverridesFull(len(own), s.mem.overrideCount)
	s.mem.mu.RUnlock()
	if full {
		return account.ErrTooMany
	}
	return s.put(idOfOverride(o).key(), o, func(m *memory) { m.putOverride(o) })
}

// DeleteOverride removes a rule.
func (s *Store) DeleteOverride(ctx context.Context, who account.ID, d domain.Name) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if _, err := s.Override(ctx, who, d); err != nil {
		return err
	}
	id := overrideID{who, d}
	return s.change(
		func(b *pebble.Batch) error { return b.Delete(id.key(), nil) },
		func(m *memory) { m.deleteOverride(who, d) },
	)
}
