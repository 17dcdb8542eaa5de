package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
)

// issuer is a token endpoint; each token it gives is another one.
type issuer struct {
	*httptest.Server
	mu     sync.Mutex
	given  int
	basic  bool // knows HTTP Basic; otherwise only the form
	answer string
}

func issue(t *testing.T, basic bool, answer string) *issuer {
	i := &issuer{basic: basic, answer: answer}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		id, secret, ok := r.BasicAuth()
		if !i.basic {
			id, secret, ok = r.PostFormValue("client_id"), r.PostFormValue("client_secret"), true
		}
		// Basic carries them form-encoded (RFC 6749 §2.3.1).
		want := "s%3Acret"
		if !i.basic {
			want = "s:cret"
		}
		if r.PostFormValue("grant_type") != "client_credentials" || !ok || id != "me" || secret != want {
			w.WriteHeader(401)
			json.NewEncoder(w).Encode(map[string]string{"error": "invalid_client"})
			return
		}
		i.given++
		fmt.Fprintf(w, i.answer, i.given)
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.given
}

func TestOAuth(t *testing.T) {
	for _, basic := range []bool{true, false} {
		t.Run(fmt.Sprint("basic=", basic), func(t *testing.T) {
			iss := issue(t, basic, `{"access_token":"t%d","token_type":"Bearer","expires_in":3600}`)
			var revoked sync.Map
			rec := receive(t, func(_ int, w http.ResponseWriter, r *http.Request) {
				if _, gone := revoked.Load(r.Header.Get("Authorization")); gone {
					w.WriteHeader(401)
				}
			})
			e := rec.endpoint("e")
			e.OAuthTokenURL, e.OAuthClientID, e.OAuthClientSecret = iss.URL, "me", "s:cret"
			s := New(quick(rec), newMemory(e), zap.NewNop(), nil)
			defer s.client.CloseIdleConnections()
			post := func() answer { return s.post(context.Background(), e, []byte("[{}]\r\n")) }

			for range 3 {
				if a := post(); a.class != ClassOK {
					t.Fatalf("%+v", a)
				}
				if got := rec.next(t).header.Get("Authorization"); got != "Bearer t1" {
					t.Errorf("Authorization %q", got)
				}
			}
			revoked.Store("Bearer t1", true)
			if a := post(); a.class != ClassOK {
				t.Errorf("after the token was revoked: %+v", a)
			}
			rec.next(t)
			if got := rec.next(t).header.Get("Authorization"); got != "Bearer t2" {
				t.Errorf("renewed Authorization %q", got)
			}
			// A fresh token that is refused is not renewed for ever.
			revoked.Store("Bearer t2", true)
			revoked.Store("Bearer t3", true)
			if a := post(); a.code != 401 || iss.count() != 3 {
				t.Errorf("%+v after %d tokens", a, iss.count())
			}
			// Another secret never goes with the old one's token.
			e.OAuthClientSecret = "wrong"
			if a := post(); a.class != ClassOAuth {
				t.Errorf("wrong secret: %+v", a)
			}
		})
	}
}

func TestReadToken(t *testing.T) {
	for text, life := range map[string]time.Duration{
		`{"access_token":"x","expires_in":3600}`:   3570 * time.Second,
		`{"access_token":"x","expires_in":"3600"}`: 3570 * time.Second,
		`{"access_token":"x","expires_in":60}`:     54 * time.Second,
		`{"access_token":"x"}`:                     defaultTokenLife,
		`{"access_token":"x","expires_in":-1}`:     defaultTokenLife,
		`{"access_token":"x","expires_in":1e300}`:  86400*time.Second - tokenMargin,
		`{"access_token":""}`:                      0,
		`{"access_token":"a\r\nX: 1"}`:             0,
		`{"access_token":"a b"}`:                   0,
		`{"access_token":"ü"}`:                     0,
		`{}`:                                       0,
		`[]`:                                       0,
		``:                                         0,
	} {
		k, err := readToken([]byte(text))
		if (err != nil) != (life == 0) {
			t.Errorf("%s: %v", text, err)
		}
		if got := time.Until(k.until); life > 0 && (got > life || got < life-5*time.Second) {
			t.Errorf("%s: kept for %v", text, got)
		}
	}
}
