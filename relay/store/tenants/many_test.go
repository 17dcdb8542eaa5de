package tenants

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"tlsrelay/policy/account"
	"tlsrelay/policy/domain"
)

// table is an engine for tests: everything in memory.
type table map[string][]byte

// empty is a room with nothing in it.
func empty(t *testing.T) *Tenants {
	db := table{}
	all := New(db, func(string) {})
	if err := all.Load(db); err != nil {
		t.Fatal(err)
	}
	return all
}

func (t table) View(visit func(Reader) error) error { return visit(t) }

func (t table) Update(fill func(Reader, Batch) error, done func()) error {
	next := maps.Clone(t)
	if err := fill(t, next); err != nil {
		return err
	}
	clear(t)
	maps.Copy(t, next)
	done()
	return nil
}

func (t table) Get(key []byte) ([]byte, bool, error) {
	v, ok := t[string(key)]
	return v, ok, nil
}

func (t table) Each(lower, upper []byte, visit func(key, value []byte) (bool, error)) error {
	for _, key := range slices.Sorted(maps.Keys(t)) {
		if key < string(lower) || upper != nil && key >= string(upper) {
			continue
		}
		if more, err := visit([]byte(key), t[key]); err != nil || !more {
			return err
		}
	}
	return nil
}

func (t table) Set(key, value []byte) error { t[string(key)] = value; return nil }

func (t table) Delete(key []byte) error { delete(t, string(key)); return nil }

func (t table) DeleteRange(lower, upper []byte) error {
	maps.DeleteFunc(t, func(key string, _ []byte) bool { return key >= string(lower) && key < string(upper) })
	return nil
}

// The account beyond the bound is refused; one that goes makes room. What is known of
// accounts by name and of keys by owner follows each change.
func TestAccountsAndKeysAreBounded(t *testing.T) {
	s := empty(t)
	ctx := t.Context()
	sub := func(name string) account.Account { return account.Account{Kind: account.KindSubuser, Username: name} }
	if _, err := s.CreateAccount(ctx, account.Account{Kind: account.KindParent, Username: "root"}); err != nil {
		t.Fatal(err)
	}
	a, err := s.CreateAccount(ctx, sub("a"))
	if err != nil {
		t.Fatal(err)
	}
	s.mem.mu.Lock()
	for i := range account.MaxAccounts - 2 {
		b := sub(fmt.Sprint("x", i))
		b.ID = account.ID(fmt.Sprint("x", i)) // never one that is given out
		s.mem.putAccount(b)
	}
	s.mem.mu.Unlock()
	if _, err := s.CreateAccount(ctx, sub("last")); err != nil {
		t.Errorf("the last one: %v", err)
	}
	if _, err := s.CreateAccount(ctx, sub("more")); !errors.Is(err, account.ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
	if _, err := s.UpdateAccount(ctx, a.ID, func(a *account.Account) error { a.Username = "b"; return nil }); err != nil {
		t.Error(err)
	}
	if _, err := s.AccountNamed(ctx, account.KindSubuser, "a"); !errors.Is(err, account.ErrNotFound) {
		t.Errorf("by its old name: %v", err)
	}
	if b, err := s.AccountNamed(ctx, account.KindSubuser, "b"); err != nil || b.ID != a.ID {
		t.Errorf("by its new name: %v, %v", b, err)
	}

	for i := range account.MaxKeys {
		if err := s.PutKey(ctx, account.Key{ID: fmt.Sprint(i), Owner: a.ID}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutKey(ctx, account.Key{ID: "more", Owner: a.ID}); !errors.Is(err, account.ErrTooMany) {
		t.Errorf("one key more: %v", err)
	}
	if err := s.PutKey(ctx, account.Key{ID: "7", Owner: a.ID, Name: "changed"}); err != nil {
		t.Errorf("a key that is there: %v", err)
	}
	if err := errors.Join(s.DeleteKey(ctx, "8"), s.PutKey(ctx, account.Key{ID: "more", Owner: a.ID})); err != nil {
		t.Errorf("in place of another: %v", err)
	}
	if keys, err := s.Keys(ctx, a.ID); err != nil || len(keys) != account.MaxKeys {
		t.Errorf("%d keys, %v", len(keys), err)
	}

	if err := s.DeleteAccount(ctx, a.ID); err != nil {
		t.Error(err)
	}
	if _, err := s.Key(ctx, "7"); !errors.Is(err, account.ErrNotFound) {
		t.Errorf("a key outlives its account: %v", err)
	}
	if _, err := s.CreateAccount(ctx, sub("b")); err != nil {
		t.Errorf("in place of another, under its name: %v", err)
	}
}

// When all accounts together have as many rules as may be, an account still has its
// first hundred, and changes what it has. The count follows each change.
func TestRulesOfAllAreBounded(t *testing.T) {
	s := empty(t)
	ctx := t.Context()
	a, err := s.CreateAccount(ctx, account.Account{Kind: account.KindSubuser, Username: "a"})
	if err != nil {
		t.Fatal(err)
	}
	put := func(i int) error {
		d, err := domain.Parse(fmt.Sprintf("d%d.example", i))
		return errors.Join(err, s.PutOverride(ctx, account.Override{Account: a.ID, Domain: d}))
	}
	setOthers := func(n int) {
		s.mem.mu.Lock()
		defer s.mem.mu.Unlock()
		s.mem.overrideCount = n + len(s.mem.overrides[a.ID])
	}
	setOthers(account.MaxOverridesOfAll)
	for i := range account.SureOverrides {
		if err := put(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(account.SureOverrides); !errors.Is(err, account.ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
	if err := put(0); err != nil {
		t.Errorf("a change: %v", err)
	}
	setOthers(0)
	if err := put(account.SureOverrides); err != nil {
		t.Errorf("with room: %v", err)
	}
	d, _ := domain.Parse("d0.example")
	if err := s.DeleteOverride(ctx, a.ID, d); err != nil || s.mem.overrideCount != account.SureOverrides {
		t.Errorf("%d are counted, %v", s.mem.overrideCount, err)
	}
	if err := s.DeleteAccount(ctx, a.ID); err != nil || s.mem.overrideCount != 0 {
		t.Errorf("%d are counted, %v", s.mem.overrideCount, err)
	}
}
