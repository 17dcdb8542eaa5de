package hooks

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"tlsrelay/events/webhook"
	"tlsrelay/relay/api/rest"
)

// FuzzWebhookForm holds a webhook's form to this: every known field that is there
// either has its kind of value and is stored, or is told of by its name; and what is
// shown of the webhook makes the same one when it is sent back.
func FuzzWebhookForm(f *testing.F) {
	for _, s := range []string{
		`{"url":"https://hooks.example.com/a"}`, `{"url":"https://hooks.example.com/a","enabled":true,"bounce":true,"open":true,"friendly_name":"x"}`,
		`{"url":"https://a.example/","oauth_client_id":"me","oauth_client_secret":"hush","oauth_token_url":"https://b.example/"}`,
		`{"url":"https://a.example/","oauth_client_id":"me"}`, `{"url":"https://127.0.0.1/"}`, `{"url":"https://a.b.localhost/"}`, `{"url":"https://0177.0.0.1/"}`, `{"url":null}`, `{"url":1,"enabled":"true"}`,
		`{"URL":"https://a.example/"}`, `{"url":"https://a.example/","url":"http://a.example/"}`, `{"url":"https://a.example/\u0000"}`, `{"url":"https://\ud800.example/"}`, `{"friendly_name":null,"account_status_change":true}`,
	} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	flags := append(otherSwitches(), "enabled", "processed", "deferred", "delivered", "bounce")
	texts := []string{"url", "friendly_name", "oauth_client_id", "oauth_client_secret", "oauth_token_url"}
	f.Fuzz(func(t *testing.T, body []byte, insecure bool) {
		var e webhook.Endpoint
		o, err := rest.ParseObject(body)
		if err == nil {
			err = read(o, &e, insecure)
		}
		if err != nil {
			fields := wrongFields(t, err)
			for _, name := range fields {
				if !slices.Contains(flags, name) && !slices.Contains(texts, name) {
					t.Fatalf("%q is refused for %q", body, name)
				}
			}
			if o != nil && len(fields) == 0 {
				t.Fatalf("%q is refused, and no field named", body)
			}
			return
		}
		for _, name := range flags {
			if v, ok := plainField(o, name); ok && v != true && v != false {
				t.Fatalf("%q is taken, with %v for %s", body, v, name)
			}
		}
		for _, name := range texts {
			v, ok := plainField(o, name)
			if _, isText := v.(string); ok && !isText && (v != nil || name == "url") {
				t.Fatalf("%q is taken, with %v for %s", body, v, name)
			}
		}
		if webhook.CheckURL(e.URL, insecure) != nil || e.OAuthTokenURL != "" && webhook.CheckURL(e.OAuthTokenURL, insecure) != nil {
			t.Fatalf("%q is taken, and nothing is posted to %q, %q", body, e.URL, e.OAuthTokenURL)
		}
		viewed := func(e webhook.Endpoint) []byte {
			v, err := view(&rest.Request{Request: &http.Request{URL: &url.URL{RawQuery: "include=" + accountStatusChange}}}, e)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := json.Marshal(v)
			return text
		}
		shown := viewed(e)
		// The secret is not shown, and goes with the URL it was given for.
		again := webhook.Endpoint{OAuthTokenURL: e.OAuthTokenURL, OAuthClientSecret: e.OAuthClientSecret}
		if o, err = rest.ParseObject(shown); err == nil {
			err = read(o, &again, insecure)
		}
		if err != nil || string(viewed(again)) != string(shown) || o.Has("oauth_client_secret") || again.OAuthClientSecret != e.OAuthClientSecret {
			t.Fatalf("%s, sent back: %v\n%s", shown, err, viewed(again))
		}
	})
}

// plainField reads a field as encoding/json does.
func plainField(o *rest.Object, name string) (v any, ok bool) {
	json.Unmarshal([]byte(o.Raw(name)), &v)
	return v, o.Has(name)
}

// wrongFields holds an error to be the client's, and gives the fields that it names.
func wrongFields(t *testing.T, err error) (names []string) {
	t.Helper()
	var told *rest.Fault
	if !errors.As(err, &told) || told.Status() != http.StatusBadRequest || len(told.Fields()) == 0 {
		t.Fatalf("told to nobody: %v", err)
	}
	for _, f := range told.Fields() {
		if f.Message == "" {
			t.Fatalf("an error without words: %v", err)
		}
		if f.Field != nil {
			names = append(names, *f.Field)
		}
	}
	return names
}
