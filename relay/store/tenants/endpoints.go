package tenants

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"tlsrelay/events"
	"tlsrelay/events/webhook"
	"tlsrelay/policy/account"
	"tlsrelay/relay/store/layout"
)

// copyEndpoint keeps the caller's hands off the memory.
func copyEndpoint(e webhook.Endpoint) webhook.Endpoint {
	e.Other = maps.Clone(e.Other)
	e.SigningKey = slices.Clone(e.SigningKey)
	return e
}

// groupEndpoints renews the list by account.
func (m *memory) groupEndpoints() {
	m.endpointsOf = make(map[string][]webhook.Endpoint)
	for _, e := range m.endpoints {
		m.endpointsOf[e.Account] = append(m.endpointsOf[e.Account], e)
	}
	for _, es := range m.endpointsOf {
		sortEndpoints(es)
	}
}

// putEndpoint adds an endpoint, or replaces it.
func (m *memory) putEndpoint(e webhook.Endpoint) {
	m.deleteEndpoint(e.ID)
	m.endpoints[e.ID] = e
	m.endpointsOf[e.Account] = append(m.endpointsOf[e.Account], e)
	sortEndpoints(m.endpointsOf[e.Account])
}

// deleteEndpoint removes an endpoint.
func (m *memory) deleteEndpoint(id string) {
	who := m.endpoints[id].Account
	m.endpointsOf[who] = slices.DeleteFunc(m.endpointsOf[who], func(e webhook.Endpoint) bool { return e.ID == id })
	if len(m.endpointsOf[who]) == 0 {
		delete(m.endpointsOf, who)
	}
	delete(m.endpoints, id)
}

// sortEndpoints puts the oldest first.
func sortEndpoints(es []webhook.Endpoint) {
	slices.SortFunc(es, func(a, b webhook.Endpoint) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
}

// Endpoint finds an endpoint by id; ok is false when it was deleted.
func (t *Tenants) Endpoint(_ context.Context, id string) (e webhook.Endpoint, ok bool, err error) {
	t.mem.mu.RLock()
	defer t.mem.mu.RUnlock()
	e, ok = t.mem.endpoints[id]
	return copyEndpoint(e), ok, nil
}

// Endpoints lists an account's endpoints, oldest first.
func (t *Tenants) Endpoints(_ context.Context, account string) ([]webhook.Endpoint, error) {
	t.mem.mu.RLock()
	defer t.mem.mu.RUnlock()
	var all []webhook.Endpoint
	for _, e := range t.mem.endpointsOf[account] {
		all = append(all, copyEndpoint(e))
	}
	return all, nil
}

// ChangeEndpoint stores an endpoint of an account that change makes, new or changed;
// account.ErrNotFound when the account is gone.
func (t *Tenants) ChangeEndpoint(ctx context.Context, who string, change func(all []webhook.Endpoint) (webhook.Endpoint, error)) (webhook.Endpoint, error) {
	t.writing.Lock()
	defer t.writing.Unlock()
	if _, err := t.Account(ctx, account.ID(who)); err != nil {
		return webhook.Endpoint{}, err
	}
	all, err := t.Endpoints(ctx, who)
	if err != nil {
		return webhook.Endpoint{}, err
	}
	e, err := change(all)
	if err == nil {
		err = webhook.Fits(all, e)
	}
	if err != nil {
		return webhook.Endpoint{}, err
	}
	e.Account = who
	e = copyEndpoint(e)
	if err := t.put(layout.EndpointKey(e.ID), e, func(m *memory) { m.putEndpoint(e) }); err != nil {
		return webhook.Endpoint{}, err
	}
	return copyEndpoint(e), nil
}

// DeleteEndpoint removes an endpoint and what waits for it. A row that is
// being committed at this moment may stay behind; Pending then names the
// endpoint still, and Remove removes it.
func (t *Tenants) DeleteEndpoint(ctx context.Context, account, id string) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	e, ok, err := t.Endpoint(ctx, id)
	if err != nil {
		return err
	}
	if !ok || e.Account != account {
		return webhook.ErrNotFound
	}
	return t.change(
		func(b Batch) error { return deleteEndpoint(b, id) },
		func(m *memory) { m.deleteEndpoint(id) },
		id,
	)
}

func deleteEndpoint(b Batch, id string) error {
	rows := layout.RowsPrefix(id)
	return errors.Join(
		b.Delete(layout.EndpointKey(id)),
		b.DeleteRange(rows, layout.After(rows)),
	)
}

// Wanted is an event that an endpoint wants to be told.
type Wanted struct {
	Endpoint string // its id
	Event    int    // of the events that were asked for
}

// AppendWanted appends to all which endpoints want which events.
func (t *Tenants) AppendWanted(all []Wanted, evs []events.Event) []Wanted {
	t.mem.mu.RLock()
	defer t.mem.mu.RUnlock()
	for i := range evs {
		for _, p := range t.mem.endpointsOf[evs[i].Account] {
			if p.Wants(evs[i].Kind) {
				all = append(all, Wanted{p.ID, i})
			}
		}
	}
	return all
}

// HoldEndpoints keeps endpoints from being removed until ReleaseEndpoints.
func (t *Tenants) HoldEndpoints() { t.mem.mu.RLock() }

// ReleaseEndpoints ends what HoldEndpoints began.
func (t *Tenants) ReleaseEndpoints() { t.mem.mu.RUnlock() }

// Held gives the account of an endpoint; ok is false when the endpoint is gone. The caller
// holds the endpoints.
func (t *Tenants) Held(endpoint string) (account string, ok bool) {
	p, ok := t.mem.endpoints[endpoint]
	return p.Account, ok
}
