package webhook

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

// Whatever a token endpoint does, it costs a bounded number of octets and a bounded
// time, and the webhook is not called without a token.
func TestHostileTokenEndpoints(t *testing.T) {
	huge := func(w io.Writer) (n int64) {
		part := bytes.Repeat([]byte("x"), 64<<10)
		io.WriteString(w, `{"access_token":"`)
		for n < 100<<20 {
			k, err := w.Write(part)
			if n += int64(k); err != nil {
				return n
			}
		}
		io.WriteString(w, `"}`)
		return n
	}
	for name, serve := range map[string]func(w http.ResponseWriter, r *http.Request) (written int64){
		"100 MB": func(w http.ResponseWriter, _ *http.Request) int64 { return huge(w) },
		"100 MB in 100 KB": func(w http.ResponseWriter, _ *http.Request) int64 {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			huge(z)
			z.Close()
			return 0
		},
		"endless white space": func(w http.ResponseWriter, r *http.Request) (n int64) {
			for {
				k, err := io.WriteString(w, strings.Repeat(" ", 4096))
				if n += int64(k); err != nil {
					return n
				}
			}
		},
		"drip": func(w http.ResponseWriter, r *http.Request) int64 {
			for {
				if _, err := io.WriteString(w, " "); err != nil || r.Context().Err() != nil {
					return 0
				}
				w.(http.Flusher).Flush()
				time.Sleep(time.Millisecond)
			}
		},
		"silence": func(_ http.ResponseWriter, r *http.Request) int64 { hang(r); return 0 },
		"redirect": func(w http.ResponseWriter, r *http.Request) int64 {
			http.Redirect(w, r, "/token", http.StatusTemporaryRedirect)
			return 0
		},
		"array": func(w http.ResponseWriter, _ *http.Request) int64 { io.WriteString(w, `["access_token"]`); return 0 },
		"two lines": func(w http.ResponseWriter, _ *http.Request) int64 {
			io.WriteString(w, `{"access_token":"x\r\nEvil: 1"}`)
			return 0
		},
		"odd lifetime": func(w http.ResponseWriter, _ *http.Request) int64 {
			io.WriteString(w, `{"access_token":"x","expires_in":"soon"}`)
			return 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			var written, asked atomic.Int64
			iss := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				io.Copy(io.Discard, r.Body) // else the server does not see the end of the connection
				written.Add(serve(w, r))
			}))
			rec := receive(t, nil)
			o := quick(rec)
			o.RequestTimeout = 500 * time.Millisecond
			s := New(o, newMemory(), zap.NewNop(), nil)
			e := rec.endpoint("e")
			e.OAuthTokenURL, e.OAuthClientID, e.OAuthClientSecret = iss.URL, "me", "s:cret"
			begun := time.Now()
			a := s.post(context.Background(), e, []byte("[{}]\r\n"))
			took := time.Since(begun)
			s.client.CloseIdleConnections()
			iss.Close()
			if a.class != ClassOAuth || a.verdict() != unreached || s.tokens.len() != 0 {
				t.Errorf("%+v, %d tokens kept", a, s.tokens.len())
			}
			rec.none(t)
			// What the sockets hold is beside what is read.
			if written.Load() > 16<<20 || took > 10*time.Second || asked.Load() != 1 {
				t.Errorf("%d octets, %v, asked %d times", written.Load(), took, asked.Load())
			}
		})
	}
}

// A token endpoint that fails is asked as seldom as a webhook that fails, twice each
// time: with the credentials in either place.
func TestFailingTokenEndpointIsLeftInPeace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := Endpoint{ID: "e", Account: "1", URL: "https://hooks.example/", Enabled: true, Deferred: true,
			OAuthTokenURL: "https://tokens.example/", OAuthClientID: "me", OAuthClientSecret: "s"}
		box := newMemory(e)
		asked := 0
		inFalseTime(t, Options{AllowInsecure: true}, box, func(r *http.Request, _ []byte) (int, error) {
			if r.URL.Host != "tokens.example" {
				t.Errorf("a POST to %s without a token", r.URL)
			}
			asked++
			return 401, nil
		})
		box.commit("e", 3)
		advance(time.Hour)
		turns.Lock()
		defer turns.Unlock()
		// 2 s, doubling up to ten minutes: nine tries until then, and five after.
		if asked < 20 || asked > 40 {
			t.Errorf("the token endpoint was asked %d times in an hour", asked)
		}
	})
}

// An account that changes its credentials at every event keeps as many tokens as it
// may have webhooks; many accounts that do so keep a bounded number, and a token in
// use stays.
func TestTokensKeptAreBounded(t *testing.T) {
	var kept tokens
	at := time.Now().Add(time.Hour)
	put := func(account string, i int) {
		kept.keep(account, keptToken{credentials{id: fmt.Sprint(i)}, token{"x", at}})
	}
	for i := range 1000 {
		put("evil", i)
	}
	if n := len(kept.kept["evil"]); n != MaxPerAccount || kept.len() != n {
		t.Errorf("%d tokens of one account, %d in all", n, kept.len())
	}
	if _, ok := kept.find("evil", credentials{id: "999"}); !ok {
		t.Error("the last token is not kept")
	}
	for i := range 3 * maxTokens {
		put(fmt.Sprint(i/MaxPerAccount), i)
	}
	sum := 0
	for _, own := range kept.kept {
		sum += len(own)
	}
	if kept.len() > maxTokens || sum != kept.len() {
		t.Errorf("%d tokens are counted, %d kept", kept.len(), sum)
	}
	at = time.Now().Add(-time.Second)
	put("late", 0)
	kept.swept = time.Time{}
	at = time.Now().Add(time.Hour)
	put("next", 0)
	if _, ok := kept.find("late", credentials{id: "0"}); ok {
		t.Error("a token past its end is kept")
	}
}
