package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/policy/domain"
)

// A key that acts for others has the share of its own account, and is told when to
// come again; those it acts for have all of theirs.
func TestChecksCountAgainstTheKeysAccount(t *testing.T) {
	hold, entered := make(chan struct{}), make(chan struct{})
	w := newWorldWith(t, Options{RequestsPerMinute: 1000}, func(d *Deps) { d.Checker = slowChecker{d.Checker, hold, entered} })
	const body = `{"domain":"example.com"}`
	const most = 4
	done := make(chan int)
	check := func(key string) {
		go func() {
			req, _ := http.NewRequest("POST", w.server.URL+"/relay/v1/check", strings.NewReader(body))
			req.Header.Set("Authorization", "Bearer "+w.vars[key])
			if key == "full" {
				req.Header.Set("On-Behalf-Of", "sub1")
			}
			res, err := plainClient().Do(req)
			if err != nil {
				done <- 0
				return
			}
			res.Body.Close()
			done <- res.StatusCode
		}()
		<-entered
	}
	for range most {
		check("full")
	}
	res, text := w.get(t, "POST", "/relay/v1/check", "full", body)
	if res.StatusCode != 429 || res.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(text, "of this account") {
		t.Errorf("one more: %d %v %s", res.StatusCode, res.Header, text)
	}
	for name, want := range map[string]string{
		"Retry-After": "5", "X-RateLimit-Limit": "4", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": fmt.Sprint(testNow.Unix() + 5),
	} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for range most {
		check("sub1")
	}
	close(hold)
	for range 2 * most {
		if code := <-done; code != 200 {
			t.Errorf("a check under way: %d", code)
		}
	}
}

// A hundred keys of an account are not a hundred shares.
func TestRateOfAnAccount(t *testing.T) {
	w := newWorld(t, Options{RequestsPerMinute: 2})
	served := 0
	for i := range 15 {
		secret := account.NewSecret()
		k := account.Key{Owner: "1", Name: "x"}
		k.ID, k.Hash, _ = account.SplitSecret(secret)
		if err := w.store.PutKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		w.vars["many"] = secret
		for range 2 {
			res, _ := w.get(t, "GET", "/v3/scopes", "many", "")
			switch {
			case res.StatusCode == 200:
				served++
			case res.StatusCode != 429 || res.Header.Get("X-RateLimit-Limit") != "20" || res.Header.Get("Retry-After") != "30":
				t.Errorf("key %d: %d %v", i, res.StatusCode, res.Header)
			}
		}
	}
	if served != 20 {
		t.Errorf("%d requests are served, want ten times two", served)
	}
	if res, _ := w.get(t, "GET", "/v3/scopes", "sub1", ""); res.StatusCode != 200 {
		t.Errorf("another account: %d", res.StatusCode)
	}
}

// The rule beyond the bound is refused, with the number; those that are there can still be changed, and another account has its own.
func TestDomainRuleLimit(t *testing.T) {
	w := newWorld(t, Options{})
	for i := range account.MaxOverrides {
		name, err := domain.Parse(fmt.Sprintf("d%d.example", i))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.store.PutOverride(t.Context(), account.Override{Account: "2", Domain: name, Settings: policy.Settings{RequireTLS: true}}); err != nil {
			t.Fatal(err)
		}
	}
	put := func(key, domain string) (int, string) {
		res, body := w.get(t, "PUT", "/relay/v1/domains/"+domain, key, `{"require_tls":true}`)
		return res.StatusCode, body
	}
	if code, body := put("sub1", "more.example"); code != 403 || !strings.Contains(body, "Cannot create more domain rules: an account may have 10000") {
		t.Errorf("one more: %d %s", code, body)
	}
	if code, body := put("sub1", "d7.example"); code != 200 {
		t.Errorf("a change: %d %s", code, body)
	}
	if code, body := put("full", "more.example"); code != 200 {
		t.Errorf("another account: %d %s", code, body)
	}
	if res, body := w.get(t, "DELETE", "/relay/v1/domains/d7.example", "sub1", ""); res.StatusCode != 204 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if code, body := put("sub1", "more.example"); code != 200 {
		t.Errorf("in place of another: %d %s", code, body)
	}
}
