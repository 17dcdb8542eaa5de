package api

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/net/http/httpguts"

	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/relay/store"
)

// household is the API over a store with a parent (root), a subuser (sub1), one that
// is disabled (gone) and a customer (1234). Each has settings of its own, so that a
// look at them tells whose they are, and a key by its name.
type household struct {
	http.Handler
	keys map[string]string
}

var householdSettings = map[string]policy.Settings{
	"root": {}, "sub1": {MinVersion: policy.TLS12}, "gone": {RequireTLS: true}, "1234": {MinVersion: policy.TLS13},
}

func newHousehold(f *testing.F, change func(*Deps)) household {
	f.Helper()
	st, err := store.Open(store.Options{Dir: "data", FS: vfs.NewMem()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { st.Close() })
	h := household{keys: make(map[string]string)}
	for _, a := range []account.Account{
		{Kind: account.KindParent, Username: "root"},
		{Kind: account.KindSubuser, Username: "sub1"},
		{Kind: account.KindSubuser, Username: "gone", Disabled: true},
		{Kind: account.KindCustomer, Username: "1234"},
	} {
		a.Settings = householdSettings[a.Username]
		if a, err = st.CreateAccount(f.Context(), a); err != nil {
			f.Fatal(err)
		}
		secret := account.NewSecret()
		k := account.Key{Owner: a.ID, Full: true, Name: a.Username, Created: testNow}
		k.ID, k.Hash, _ = account.SplitSecret(secret)
		if err := st.PutKey(f.Context(), k); err != nil {
			f.Fatal(err)
		}
		h.keys[a.Username] = secret
	}
	d := Deps{Accounts: st, Overrides: st, Webhooks: st, Blocks: st, Messages: st, Checker: &fakeChecker{}, Tester: &fakeTester{}}
	if change != nil {
		change(&d)
	}
	h.Handler = New(Options{Now: func() time.Time { return testNow }}, d, nil).Public
	return h
}

func (h household) ask(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// checkRefusal holds an answer that is no success to the form of errors, and gives
// the fields that it names.
func checkRefusal(t *testing.T, body []byte) (fields []string) {
	t.Helper()
	var refusal struct {
		Detail string
		Errors []struct {
			Message string
			Field   *string
		}
	}
	if err := json.Unmarshal(body, &refusal); err != nil || refusal.Detail == "" && len(refusal.Errors) == 0 {
		t.Fatalf("no error that a client can read: %s", body)
	}
	for _, e := range refusal.Errors {
		if e.Message == "" {
			t.Fatalf("an error without words: %s", body)
		}
		if e.Field != nil {
			fields = append(fields, *e.Field)
		}
	}
	return fields
}

// FuzzOnBehalfOf holds the header to one account or none, whatever it says and how
// often: the caller acts on itself only where the header is absent, empty or names
// it, and on a child only where it names that child.
func FuzzOnBehalfOf(f *testing.F) {
	for _, s := range []string{"", " ", "sub1", "root", "gone", "account-id 1234", "Account-ID \t 1234", "account-id", "account-id sub1", "1234", "sub1,root", "\u00a0", "\u0085sub1", "SUB1", "account-id  ", "sub1\x00"} {
		f.Add(s, "", uint8(0))
		f.Add(s, "sub1", uint8(1))
		f.Add(s, "root", uint8(2))
		f.Add("", s, uint8(0x80))
	}
	h := newHousehold(f, nil)
	callers := []string{"root", "sub1", "1234"}
	f.Fuzz(func(t *testing.T, first, second string, how uint8) {
		caller, twice := callers[int(how)%len(callers)], how&0x80 != 0
		if strings.ContainsAny(first+second, "\r\n") || !httpguts.ValidHeaderFieldValue(first) || !httpguts.ValidHeaderFieldValue(second) {
			return // net/http lets no such request through
		}
		text := "GET /v3/user/settings/enforced_tls HTTP/1.1\r\nHost: relay.example\r\nAuthorization: Bearer " + h.keys[caller] + "\r\nOn-Behalf-Of: " + first + "\r\n"
		if twice {
			text += "on-behalf-of: " + second + "\r\n"
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text + "\r\n")))
		if err != nil {
			return
		}
		w := h.ask(r)
		if w.Code == http.StatusForbidden {
			checkRefusal(t, w.Body.Bytes())
			return
		}
		whose := ""
		for name, settings := range householdSettings {
			if w.Body.String() == string(encoded(t, viewTLS(settings))) {
				whose = name
			}
		}
		if whose == "" {
			t.Fatalf("%q: %d %s", first, w.Code, w.Body)
		}
		said := strings.Trim(first, " \t")
		switch {
		case twice && strings.Trim(second, " \t") != said:
			t.Fatalf("%q and %q: acted on %s", first, second, whose)
		case whose == "gone", caller != "root" && whose != caller:
			t.Fatalf("%s, on behalf of %q, acted on %s", caller, first, whose)
		case said == "" && whose == caller, whose == strings.TrimSpace(said) && whose != "1234":
		case whose == "1234" && regexp.MustCompile(`(?i)^account-id[ \t]+1234\s*$`).MatchString(said):
		default:
			t.Fatalf("%s, on behalf of %q, acted on %s", caller, first, whose)
		}
	})
}
