package tenants

import (
	"sync"

	"tlsrelay/events/webhook"
	"tlsrelay/policy/account"
	"tlsrelay/policy/domain"
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

// Load reads the copy anew, all of it or nothing: while the database
// cannot be read, what was known before goes on being known.
func (t *Tenants) Load(r Reader) error {
	accounts, err := loadAll(r, layout.Accounts, func(a account.Account) account.ID { return a.ID })
	if err != nil {
		return err
	}
	keys, err := loadAll(r, layout.Keys, func(k account.Key) string { return k.ID })
	if err != nil {
		return err
	}
	overrides, err := loadAll(r, layout.Overrides, idOfOverride)
	if err != nil {
		return err
	}
	endpoints, err := loadAll(r, layout.Endpoints, func(e webhook.Endpoint) string { return e.ID })
	if err != nil {
		return err
	}
	m := &t.mem
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
	return nil
}

func loadAll[K comparable, V any](r Reader, prefix string, id func(V) K) (map[K]V, error) {
	all := make(map[K]V)
	err := r.Each([]byte(prefix), layout.After([]byte(prefix)), func(_, value []byte) (bool, error) {
		v, err := layout.Decode[V](value)
		if err != nil {
			return false, err
		}
		all[id(v)] = v
		return true, nil
	})
	return all, err
}
