package storetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"tlsrelay/events"
	"tlsrelay/events/webhook"
	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/policy/domain"
	"tlsrelay/relay"
)

func (h *harness) create(kind account.Kind, name string) account.Account {
	h.Helper()
	a, err := h.CreateAccount(h.ctx, account.Account{Kind: kind, Username: name, Created: h.now})
	h.ok(err)
	return a
}

func testAccounts(h *harness) {
	sub := h.create(account.KindSubuser, "sub") // before the parent: ids do not depend on it
	parent := h.create(account.KindParent, "parent")
	customer := h.create(account.KindCustomer, "sub")
	h.equal(parent.ID, account.Parent, "the parent's id")
	for _, c := range []account.Account{
		{Kind: account.KindSubuser, Username: "sub"}, {Kind: account.KindSubuser, Username: "parent"},
		{Kind: account.KindCustomer, Username: "sub"}, {Kind: account.KindParent, Username: "second"},
	} {
		if _, err := h.CreateAccount(h.ctx, c); !errors.Is(err, account.ErrExists) {
			h.Fatalf("%+v: %v", c, err)
		}
	}
	changed, err := h.UpdateAccount(h.ctx, sub.ID, func(a *account.Account) error {
		a.Settings = policy.Settings{RequireTLS: true, MinVersion: policy.TLS12}
		a.ID, a.Kind = "99", account.KindParent // not theirs to change
		return nil
	})
	h.ok(err)
	h.equal(changed.ID, sub.ID, "id")
	h.equal(changed.Kind, sub.Kind, "kind")
	refused := errors.New("no")
	if _, err := h.UpdateAccount(h.ctx, sub.ID, func(a *account.Account) error { a.Disabled = true; return refused }); !errors.Is(err, refused) {
		h.Fatal(err)
	}
	if _, err := h.UpdateAccount(h.ctx, sub.ID, func(a *account.Account) error { a.Username = "parent"; return nil }); !errors.Is(err, account.ErrExists) {
		h.Fatal(err)
	}
	h.reopen()
	got, err := h.AccountNamed(h.ctx, account.KindSubuser, "sub")
	h.ok(err)
	h.equal(got, changed, "account")
	got, err = h.AccountNamed(h.ctx, account.KindCustomer, "sub")
	h.ok(err)
	h.equal(got.ID, customer.ID, "customer")
	all, err := h.Accounts(h.ctx)
	h.ok(err)
	h.equal(len(all), 3, "accounts")
	h.ok(h.DeleteAccount(h.ctx, customer.ID))
	h.reopen()
	again := h.create(account.KindCustomer, "sub")
	if again.ID == customer.ID {
		h.Fatal("an id was used again")
	}
	for range 10 {
		h.create(account.KindSubuser, relay.NewMessageID(h.now).String())
	}
	all, err = h.Accounts(h.ctx)
	h.ok(err)
	h.equal(all[len(all)-1].ID > "9", false, "ids have two digits by now, as text they sort low")
	h.equal(all[0].ID, account.Parent, "order")
	if _, err := h.Account(h.ctx, "77"); !errors.Is(err, account.ErrNotFound) {
		h.Fatal(err)
	}
}

func testDeleteAccount(h *harness) {
	h.create(account.KindParent, "parent")
	sub := h.create(account.KindSubuser, "sub")
	d, _ := domain.Parse("example.com")
	h.ok(h.PutKey(h.ctx, account.Key{ID: "k", Owner: sub.ID}))
	h.ok(h.PutKey(h.ctx, account.Key{ID: "k2", Owner: account.Parent}))
	h.ok(PutEndpoint(h.ctx, h, endpoint("e", string(sub.ID), h.now)))
	h.ok(h.PutOverride(h.ctx, account.Override{Account: sub.ID, Domain: d}))
	m, ds := h.message("a@example.com")
	m.Account, ds[0].Account = sub.ID, sub.ID
	h.accept(m, ds, "x")
	h.ok(h.DeleteAccount(h.ctx, sub.ID))
	for _, again := range []bool{false, true} {
		if again {
			h.reopen()
		}
		if _, err := h.Key(h.ctx, "k"); !errors.Is(err, account.ErrNotFound) {
			h.Fatal(err)
		}
		_, err := h.Key(h.ctx, "k2")
		h.ok(err)
		if _, err := h.Override(h.ctx, sub.ID, d); !errors.Is(err, account.ErrNotFound) {
			h.Fatal(err)
		}
		points, err := h.Endpoints(h.ctx, string(sub.ID))
		h.ok(err)
		h.equal(len(points), 0, "endpoints")
		pending, err := h.Pending(h.ctx)
		h.ok(err)
		h.equal(len(pending), 0, "pending")
	}
	if err := h.DeleteAccount(h.ctx, sub.ID); !errors.Is(err, account.ErrNotFound) {
		h.Fatal(err)
	}
	if err := h.PutKey(h.ctx, account.Key{ID: "k3", Owner: sub.ID}); !errors.Is(err, account.ErrNotFound) {
		h.Fatalf("a key of nobody: %v", err)
	}
	got, _, err := h.Claim(h.ctx, ds[0].Lane, sub.ID, h.now, 1, func(int) time.Time { return h.now }, nil)
	h.ok(err)
	h.equal(len(got), 1, "its mail goes on")
}

func testKeys(h *harness) {
	h.create(account.KindParent, "parent")
	sub := h.create(account.KindSubuser, "sub")
	scopes := []account.Scope{account.MailSend}
	for i, id := range []string{"c", "a", "b"} {
		h.ok(h.PutKey(h.ctx, account.Key{
			ID: id, Owner: account.Parent, Hash: [32]byte{byte(i)}, Scopes: scopes, Created: h.now.Add(time.Duration(i) * time.Second),
		}))
	}
	h.ok(h.PutKey(h.ctx, account.Key{ID: "d", Owner: sub.ID}))
	scopes[0] = account.KeysCreate // the store has its own copy
	for _, again := range []bool{false, true} {
		if again {
			h.reopen()
		}
		keys, err := h.Keys(h.ctx, account.Parent)
		h.ok(err)
		h.equal(len(keys), 3, "keys")
		h.equal(keys[0].ID+keys[1].ID+keys[2].ID, "cab", "order")
		h.equal(keys[1].Scopes, []account.Scope{account.MailSend}, "scopes")
		h.equal(keys[1].Hash, [32]byte{1}, "hash")
	}
	changed, err := h.UpdateKey(h.ctx, "b", func(k *account.Key) error {
		k.Name, k.ID, k.Owner, k.Hash = "named", "z", sub.ID, [32]byte{}
		return nil
	})
	h.ok(err)
	refused := errors.New("refused")
	if _, err := h.UpdateKey(h.ctx, "b", func(k *account.Key) error { k.Name = "other"; return refused }); !errors.Is(err, refused) {
		h.Fatal(err)
	}
	h.reopen()
	b, err := h.Key(h.ctx, "b")
	h.ok(err)
	h.equal(b, changed, "as it was returned")
	h.equal(b, account.Key{
		ID: "b", Owner: account.Parent, Hash: [32]byte{2}, Name: "named",
		Scopes: []account.Scope{account.MailSend}, Created: b.Created,
	}, "only what may change")
	h.ok(h.DeleteKey(h.ctx, "a"))
	if _, err := h.UpdateKey(h.ctx, "a", func(*account.Key) error { return nil }); !errors.Is(err, account.ErrNotFound) {
		h.Fatal("a revoked key comes back")
	}
	if _, err := h.Key(h.ctx, "a"); !errors.Is(err, account.ErrNotFound) {
		h.Fatal("a revoked key opens still")
	}
	if err := h.DeleteKey(h.ctx, "a"); !errors.Is(err, account.ErrNotFound) {
		h.Fatal(err)
	}
	h.reopen()
	if _, err := h.Key(h.ctx, "a"); !errors.Is(err, account.ErrNotFound) {
		h.Fatal("a revoked key came back")
	}
}

func testEndpoints(h *harness) {
	e := endpoint("b", "1", h.now)
	e.SigningKey, e.Other = []byte{1, 2}, map[string]bool{"open": true}
	h.ok(PutEndpoint(h.ctx, h, e))
	h.ok(PutEndpoint(h.ctx, h, endpoint("a", "1", h.now.Add(time.Second))))
	h.ok(PutEndpoint(h.ctx, h, endpoint("c", "2", h.now)))
	h.reopen()
	all, err := h.Endpoints(h.ctx, "1")
	h.ok(err)
	h.equal(len(all), 2, "endpoints")
	h.equal(all[0].ID+all[1].ID, "ba", "order")
	h.equal(all[0].SigningKey, e.SigningKey, "key")
	h.equal(all[0].Other, e.Other, "switches")
	all[0].Other["open"] = false // a copy
	got, ok, err := h.Endpoint(h.ctx, "b")
	h.ok(err)
	h.equal(ok && got.Other["open"], true, "the store's own")
	for _, c := range [][2]string{{"2", "b"}, {"1", "none"}} {
		if err := h.DeleteEndpoint(h.ctx, c[0], c[1]); !errors.Is(err, webhook.ErrNotFound) {
			h.Fatalf("%v: %v", c, err)
		}
	}
}

// The rules about endpoints hold whoever writes, and however many at once.
func testEndpointRules(h *harness) {
	h.create(account.KindParent, "parent")
	sub := h.create(account.KindSubuser, "sub")
	who := string(sub.ID)
	var writers sync.WaitGroup
	var made, taken, full atomic.Int64
	for i := range 4 * webhook.MaxPerAccount {
		writers.Go(func() {
			e := endpoint(fmt.Sprintf("e%d", i), who, h.now)
			e.URL = fmt.Sprintf("https://example.org/%d", i/2) // two want the same
			switch err := PutEndpoint(h.ctx, h, e); {
			case err == nil:
				made.Add(1)
			case errors.Is(err, webhook.ErrTooMany):
				full.Add(1)
			case errors.As(err, new(webhook.URLTakenError)):
				taken.Add(1)
			default:
				h.Error(err)
			}
		})
	}
	writers.Wait()
	all, err := h.Endpoints(h.ctx, who)
	h.ok(err)
	urls := map[string]bool{}
	for _, e := range all {
		urls[e.URL] = true
	}
	if len(all) != webhook.MaxPerAccount || len(urls) != len(all) || int(made.Load()) != len(all) {
		h.Errorf("%d endpoints with %d URLs, %d made, %d of a URL that is taken, %d too many", len(all), len(urls), made.Load(), taken.Load(), full.Load())
	}
	all[0].FriendlyName = "changed" // beyond no bound
	h.ok(PutEndpoint(h.ctx, h, all[0]))
	all[0].URL = all[1].URL
	var is webhook.URLTakenError
	if err := PutEndpoint(h.ctx, h, all[0]); !errors.As(err, &is) || is.ID != all[1].ID {
		h.Errorf("the URL of another endpoint: %v", err)
	}
	unwanted := errors.New("unwanted")
	_, err = h.ChangeEndpoint(h.ctx, who, func(seen []webhook.Endpoint) (webhook.Endpoint, error) {
		h.equal(len(seen), len(all), "endpoints to change")
		return all[1], unwanted
	})
	h.equal(errors.Is(err, unwanted), true, "the error of change")
}

// No endpoint outlives its account, also when one is made while the account ends.
func testEndpointOfEndedAccount(h *harness) {
	h.create(account.KindParent, "parent")
	for i := range 50 {
		sub := h.create(account.KindSubuser, fmt.Sprintf("sub%d", i))
		who := string(sub.ID)
		var both sync.WaitGroup
		both.Go(func() {
			_, err := h.ChangeEndpoint(h.ctx, who, func([]webhook.Endpoint) (webhook.Endpoint, error) {
				return endpoint("e"+who, who, h.now), nil
			})
			if err != nil && !errors.Is(err, account.ErrNotFound) {
				h.Error(err)
			}
		})
		both.Go(func() {
			if err := h.DeleteAccount(h.ctx, sub.ID); err != nil {
				h.Error(err)
			}
		})
		both.Wait()
		if _, ok, err := h.Endpoint(h.ctx, "e"+who); ok || err != nil {
			h.Fatalf("endpoint of account %s, which ended: %t, %v", who, ok, err)
		}
	}
	h.reopen()
	all, err := h.Accounts(h.ctx)
	h.ok(err)
	h.equal(len(all), 1, "accounts")
}

func testOverrides(h *harness) {
	h.create(account.KindParent, "parent")
	for _, name := range []string{"b.example", "a.example"} {
		d, err := domain.Parse(name)
		h.ok(err)
		h.ok(h.PutOverride(h.ctx, account.Override{
			Account: account.Parent, Domain: d, Settings: policy.Settings{RequireTLS: true},
			Expires: h.now.Add(time.Hour), Reason: "contract", Owner: "ops", Updated: h.now,
		}))
	}
	h.reopen()
	all, err := h.Overrides(h.ctx, account.Parent)
	h.ok(err)
	h.equal(len(all), 2, "overrides")
	o := all[0]
	h.equal(o.Domain.String(), "a.example", "order")
	h.equal(o.Settings.RequireTLS, true, "settings")
	h.equal(o.InForce(h.now), true, "before it expires")
	h.equal(o.InForce(h.now.Add(time.Hour)), false, "after")
	h.ok(h.DeleteOverride(h.ctx, account.Parent, o.Domain))
	if err := h.DeleteOverride(h.ctx, account.Parent, o.Domain); !errors.Is(err, account.ErrNotFound) {
		h.Fatal(err)
	}
	h.reopen()
	if _, err := h.Override(h.ctx, account.Parent, o.Domain); !errors.Is(err, account.ErrNotFound) {
		h.Fatal(err)
	}
	if err := h.PutOverride(h.ctx, account.Override{Account: "9", Domain: o.Domain}); !errors.Is(err, account.ErrNotFound) {
		h.Fatal(err)
	}
}

// blocked has a recipient blocked at a time.
func (h *harness) blocked(rcpt string, at time.Time) {
	h.Helper()
	m, ds := h.message(rcpt)
	ds[0].Attempts = 1
	h.accept(m, ds, "x")
	h.ok(h.Commit(h.ctx, Blocked(relay.Claimed{Message: m, Delivery: ds[0]}, at)))
}

// endOfTime is later than nanoseconds in 64 bits go.
var endOfTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

func testBlocks(h *harness) {
	at := func(i int) time.Time { return h.now.Add(time.Duration(i) * time.Minute) }
	for i := range 5 {
		h.blocked(fmt.Sprintf("user%d@example.com", i), at(i))
	}
	h.blocked("User1@example.com", at(10)) // the newest wins
	h.blocked("user2@example.com", at(-10))
	h.reopen()
	list := func(f events.BlockFilter) (names []string, total int) {
		h.Helper()
		rows, total, err := h.Blocks(h.ctx, "1", f)
		h.ok(err)
		for _, r := range rows {
			names = append(names, r.Email[:5])
		}
		return names, total
	}
	for _, c := range []struct {
		f     events.BlockFilter
		want  []string
		total int
	}{
		{events.BlockFilter{}, []string{"User1", "user4", "user3", "user2", "user0"}, 5},
		{events.BlockFilter{Offset: 1, Limit: 2}, []string{"user4", "user3"}, 5},
		{events.BlockFilter{From: at(3)}, []string{"User1", "user4", "user3"}, 3},
		{events.BlockFilter{To: at(3)}, []string{"user3", "user2", "user0"}, 3},
		{events.BlockFilter{From: at(2), To: at(3)}, []string{"user3", "user2"}, 2},
		{events.BlockFilter{From: at(3), To: at(2)}, nil, 0},
		{events.BlockFilter{From: at(3), To: endOfTime}, []string{"User1", "user4", "user3"}, 3},
		{events.BlockFilter{From: endOfTime}, nil, 0},
		{events.BlockFilter{From: endOfTime, To: endOfTime}, nil, 0},
		{events.BlockFilter{From: time.Unix(0, 0), To: at(0)}, []string{"user0"}, 1},
		{events.BlockFilter{Prefix: "USER1"}, []string{"User1"}, 1},
		{events.BlockFilter{Prefix: "x"}, nil, 0},
		{events.BlockFilter{Offset: 9}, nil, 5},
	} {
		names, total := list(c.f)
		h.equal(names, c.want, fmt.Sprintf("%+v", c.f))
		h.equal(total, c.total, fmt.Sprintf("%+v", c.f))
	}
	b, err := h.Block(h.ctx, "1", "uSer3@example.com")
	h.ok(err)
	h.equal(b.Reason, events.TLSBlocked, "reason")
	id, err := relay.ParseMessageID(b.MessageID)
	h.ok(err)
	_, ds, err := h.Message(h.ctx, id)
	h.ok(err)
	h.equal(ds[0].Last.Reason, events.StartTLSNotOffered, "evidence")
	for _, who := range []string{"1", "2"} {
		if _, err := h.Block(h.ctx, who, "none@example.com"); !errors.Is(err, events.ErrNoBlock) || !errors.Is(err, relay.ErrNotFound) {
			h.Fatal(err)
		}
	}
	h.ok(h.DeleteBlock(h.ctx, "1", "user3@EXAMPLE.com"))
	if err := h.DeleteBlock(h.ctx, "1", "user3@example.com"); !errors.Is(err, events.ErrNoBlock) {
		h.Fatal(err)
	}
	_, total := list(events.BlockFilter{})
	h.equal(total, 4, "after a deletion")
	h.ok(h.DeleteBlocks(h.ctx, "2"))
	h.ok(h.DeleteBlocks(h.ctx, "1"))
	h.reopen()
	_, total = list(events.BlockFilter{})
	h.equal(total, 0, "after the deletion of all")
}
