package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"tlsrelay/events/webhook"
	"tlsrelay/policy/account"
	"tlsrelay/policy/domain"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// memory is a copy of what every message asks for, so that reading it costs
// nothing and a revoked key is shut out at once. It changes after the
// database has.
//
// What one account has is found without a look at what the others have: a tenant
// with much of its own does not slow their calls down.
type memory struct {
	mu            sync.RWMutex
	accounts      map[account.ID]account.Account
	named         map[accountName]account.ID
	keys          map[string]account.Key
	keysOf        map[account.ID]map[string]bool // their ids
	overrides     map[account.ID]map[domain.Name]account.Override
	overrideCount int // of all accounts
	endpoints     map[string]webhook.Endpoint
	endpointsOf   map[string][]webhook.Endpoint // by account, oldest first
	sent          sentTo
}

// accountName is what no two accounts have in common: the parent and its subusers
// share their names, the customers' are apart.
type accountName struct {
	customer bool
	name     string
}

func nameOf(a account.Account) accountName {
	return accountName{a.Kind == account.KindCustomer, a.Username}
}

// putAccount adds an account, or replaces it.
func (m *memory) putAccount(a account.Account) {
	if old, ok := m.accounts[a.ID]; ok {
		delete(m.named, nameOf(old))
	}
	m.accounts[a.ID], m.named[nameOf(a)] = a, a.ID
}

// putKey adds a key, or replaces it.
func (m *memory) putKey(k account.Key) {
	m.keys[k.ID] = k
	if m.keysOf[k.Owner] == nil {
		m.keysOf[k.Owner] = make(map[string]bool)
	}
	m.keysOf[k.Owner][k.ID] = true
}

// deleteKey removes a key.
func (m *memory) deleteKey(id string) {
	delete(m.keysOf[m.keys[id].Owner], id)
	delete(m.keys, id)
}

// loadMemory reads the copy anew, all of it or nothing: while the database
// cannot be read, what was known before goes on being known.
func (s *Store) loadMemory(db *engine.DB) error {
	accounts, err := loadAll(db, layout.Accounts, func(a account.Account) account.ID { return a.ID })
	if err != nil {
		return err
	}
	keys, err := loadAll(db, layout.Keys, func(k account.Key) string { return k.ID })
	if err != nil {
		return err
	}
	overrides, err := loadAll(db, layout.Overrides, idOfOverride)
	if err != nil {
		return err
	}
	endpoints, err := loadAll(db, layout.Endpoints, func(e webhook.Endpoint) string { return e.ID })
	if err != nil {
		return err
	}
	if err := s.resumeOutbox(db); err != nil {
		return err
	}
	m := &s.mem
	m.mu.Lock()
	defer m.mu.Unlock()
	m.accounts, m.named = accounts, make(map[accountName]account.ID)
	for id, a := range accounts {
		m.named[nameOf(a)] = id
	}
	m.keys, m.keysOf = make(map[string]account.Key), make(map[account.ID]map[string]bool)
	for _, k := range keys {
		m.putKey(k)
	}
	m.overrides, m.overrideCount = make(map[account.ID]map[domain.Name]account.Override), 0
	for _, o := range overrides {
		m.putOverride(o)
	}
	m.endpoints = endpoints
	m.groupEndpoints()
	m.sent.at = nil // a removal may have been lost
	return nil
}

// resumeOutbox finds the highest sequence number in use.
func (s *Store) resumeOutbox(db *engine.DB) error {
	it, err := db.NewIter([]byte(layout.Outbox), layout.After([]byte(layout.Outbox)))
	if err != nil {
		return db.ReadError(err)
	}
	next := uint64(1)
	for ok := it.First(); ok; {
		id, _, err := layout.ParseRowKey(it.Key())
		if err != nil {
			return errors.Join(err, it.Close())
		}
		end := layout.After(layout.RowsPrefix(id))
		if it.SeekLT(end) {
			_, seq, err := layout.ParseRowKey(it.Key())
			if err != nil {
				return errors.Join(err, it.Close())
			}
			next = max(next, seq+1)
		}
		ok = it.SeekGE(end)
	}
	s.tickets.resume(next)
	return it.Close()
}

func loadAll[K comparable, V any](db *engine.DB, prefix string, id func(V) K) (map[K]V, error) {
	all := make(map[K]V)
	err := db.EachPrefix([]byte(prefix), func(_, value []byte) (bool, error) {
		v, err := layout.Decode[V](value)
		if err != nil {
			return false, err
		}
		all[id(v)] = v
		return true, nil
	})
	return all, err
}

// change commits, synced, what fill puts into a batch, and then runs apply
// with the memory locked. The rows of the endpoints that are gone by that are
// counted no more. The caller holds s.writing.
func (s *Store) change(fill func(b *pebble.Batch) error, apply func(m *memory), gone ...string) error {
	db, err := s.engine.Enter()
	if err != nil {
		return err
	}
	defer s.engine.Leave()
	b := db.NewBatch()
	if err := fill(b); err != nil {
		return errors.Join(err, b.Close())
	}
	if err := db.Apply(b, true); err != nil {
		return err
	}
	s.mem.mu.Lock()
	apply(&s.mem)
	s.mem.mu.Unlock()
	for _, endpoint := range gone {
		s.boxes.drop(endpoint)
	}
	return nil
}

// put is change for one record.
func (s *Store) put(key []byte, v any, apply func(m *memory)) error {
	text, err := layout.Encode(v)
	if err != nil {
		return err
	}
	return s.change(func(b *pebble.Batch) error { return b.Set(key, text, nil) }, apply)
}

// Account finds an account by id.
func (s *Store) Account(_ context.Context, id account.ID) (account.Account, error) {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	a, ok := s.mem.accounts[id]
	if !ok {
		return a, account.ErrNotFound
	}
	return a, nil
}

// AccountNamed finds an account by its kind and name.
func (s *Store) AccountNamed(_ context.Context, kind account.Kind, name string) (account.Account, error) {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	id, ok := s.mem.named[accountName{kind == account.KindCustomer, name}]
	if a := s.mem.accounts[id]; ok && a.Kind == kind {
		return a, nil
	}
	return account.Account{}, account.ErrNotFound
}

// Accounts lists all accounts in the order they were made.
func (s *Store) Accounts(context.Context) ([]account.Account, error) {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	return slices.SortedFunc(maps.Values(s.mem.accounts), func(a, b account.Account) int {
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
func (s *Store) CreateAccount(_ context.Context, a account.Account) (account.Account, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.nameFree(a); err != nil {
		return account.Account{}, err
	}
	if a.Kind != account.KindParent && s.countAccounts() > account.MaxAccounts { // with the parent
		return account.Account{}, account.ErrTooMany
	}
	last, err := s.lastAccount()
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
	err = s.change(func(b *pebble.Batch) error {
		return errors.Join(
			b.Set([]byte(layout.CounterAccounts), strconv.AppendUint(nil, last, 10), nil),
			b.Set(layout.AccountKey(a.ID), text, nil),
		)
	}, func(m *memory) { m.putAccount(a) })
	if err != nil {
		return account.Account{}, err
	}
	return a, nil
}

func (s *Store) countAccounts() int {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	return len(s.mem.accounts)
}

// lastAccount is the highest number given out; the parent's is always taken.
func (s *Store) lastAccount() (uint64, error) {
	db, err := s.engine.Enter()
	if err != nil {
		return 0, err
	}
	defer s.engine.Leave()
	v, found, err := db.Get([]byte(layout.CounterAccounts))
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
func (s *Store) nameFree(a account.Account) error {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	id, taken := s.mem.named[nameOf(a)]
	_, parent := s.mem.accounts[account.Parent]
	if taken && id != a.ID || parent && a.Kind == account.KindParent && a.ID != account.Parent {
		return account.ErrExists
	}
	return nil
}

// UpdateAccount changes one account. Its id and kind stay.
func (s *Store) UpdateAccount(ctx context.Context, id account.ID, change func(*account.Account) error) (account.Account, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	was, err := s.Account(ctx, id)
	if err != nil {
		return account.Account{}, err
	}
	a := was
	if err := change(&a); err != nil {
		return account.Account{}, err
	}
	a.ID, a.Kind = was.ID, was.Kind
	if err := s.nameFree(a); err != nil {
		return account.Account{}, err
	}
	if err := s.put(layout.AccountKey(id), a, func(m *memory) { m.putAccount(a) }); err != nil {
		return account.Account{}, err
	}
	return a, nil
}

// DeleteAccount removes an account with its keys, webhooks and what waits for
// them, overrides and blocks. Its queued mail bounces on the next attempt.
func (s *Store) DeleteAccount(ctx context.Context, id account.ID) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if _, err := s.Account(ctx, id); err != nil {
		return err
	}
	keys, err := s.Keys(ctx, id)
	if err != nil {
		return err
	}
	points, err := s.Endpoints(ctx, string(id))
	if err != nil {
		return err
	}
	var gone []string
	for _, p := range points {
		gone = append(gone, p.ID)
	}
	return s.change(func(b *pebble.Batch) error {
		errs := []error{b.Delete(layout.AccountKey(id), nil)}
		for _, k := range keys {
			errs = append(errs, b.Delete(layout.KeyKey(k.ID), nil))
		}
		for _, p := range points {
			errs = append(errs, deleteEndpoint(b, p.ID))
		}
		for _, prefix := range []string{layout.Overrides, layout.Blocks, layout.BlockTimes} {
			own := layout.ScopedKey(prefix, string(id), "")
			errs = append(errs, b.DeleteRange(own, layout.After(own), nil))
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

// Key finds a key by the public part of its secret.
func (s *Store) Key(_ context.Context, id string) (account.Key, error) {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	k, ok := s.mem.keys[id]
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
func (s *Store) Keys(_ context.Context, owner account.ID) ([]account.Key, error) {
	s.mem.mu.RLock()
	defer s.mem.mu.RUnlock()
	var keys []account.Key
	for id := range s.mem.keysOf[owner] {
		keys = append(keys, copyKey(s.mem.keys[id]))
	}
	slices.SortFunc(keys, func(a, b account.Key) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return keys, nil
}

// PutKey stores a new key; account.ErrNotFound when its owner is gone,
// account.ErrTooMany when the owner has account.MaxKeys.
func (s *Store) PutKey(ctx context.Context, k account.Key) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if _, err := s.Account(ctx, k.Owner); err != nil {
		return err
	}
	s.mem.mu.RLock()
	full := len(s.mem.keysOf[k.Owner]) >= account.MaxKeys && !s.mem.keysOf[k.Owner][k.ID]
	s.mem.mu.RUnlock()
	if full {
		return account.ErrTooMany
	}
	k = copyKey(k)
	return s.put(layout.KeyKey(k.ID), k, func(m *memory) { m.putKey(k) })
}

// UpdateKey changes a key and returns it as stored.
func (s *Store) UpdateKey(ctx context.Context, id string, change func(*account.Key) error) (account.Key, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	was, err := s.Key(ctx, id)
	if err != nil {
		return account.Key{}, err
	}
	k := was
	if err := change(&k); err != nil {
		return account.Key{}, err
	}
	k.ID, k.Hash, k.Owner = was.ID, was.Hash, was.Owner
	k = copyKey(k)
	if err := s.put(layout.KeyKey(id), k, func(m *memory) { m.putKey(k) }); err != nil {
		return account.Key{}, err
	}
	return copyKey(k), nil
}

// DeleteKey revokes a key.
func (s *Store) DeleteKey(ctx context.Context, id string) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if _, err := s.Key(ctx, id); err != nil {
		return err
	}
	return s.change(
		func(b *pebble.Batch) error { return b.Delete(layout.KeyKey(id), nil) },
		func(m *memory) { m.deleteKey(id) },
	)
}
