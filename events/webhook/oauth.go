package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// tokens fetches access tokens by the client credentials grant (RFC 6749
// §4.4) and keeps them until they expire.
type tokens struct {
	client   *http.Client
	insecure bool

	mu   sync.Mutex
	kept map[credentials]token
}

// credentials are all that a token depends on: an endpoint whose secret was
// changed must not go on with the token of the old one.
type credentials struct{ url, id, secret string }

type token struct {
	value string
	until time.Time
}

const (
	// How long a token without expires_in is kept; a 401 ends it earlier.
	defaultTokenLife = 10 * time.Minute
	// A token this close to its end might expire on the way.
	tokenMargin = 30 * time.Second
	// maxToken bounds an access token, of which many are kept.
	maxToken = 4 << 10
)

func credentialsOf(e Endpoint) credentials {
	return credentials{e.OAuthTokenURL, e.OAuthClientID, e.OAuthClientSecret}
}

// get gives the token for e; cached reports that it is an old one.
func (t *tokens) get(ctx context.Context, e Endpoint) (value string, cached bool, err error) {
	c := credentialsOf(e)
	t.mu.Lock()
	k, ok := t.kept[c]
	t.mu.Unlock()
	if ok && time.Now().Before(k.until) {
		return k.value, true, nil
	}
	if err := CheckURL(c.url, t.insecure); err != nil {
		return "", false, err
	}
	if k, err = t.fetch(ctx, c); err != nil {
		return "", false, err
	}
	t.keep(c, k)
	return k.value, false, nil
}

func (t *tokens) forget(e Endpoint) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.kept, credentialsOf(e))
}

func (t *tokens) keep(c credentials, k token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for old, o := range t.kept {
		if !now.Before(o.until) {
			delete(t.kept, old)
		}
	}
	if t.kept == nil {
		t.kept = make(map[credentials]token)
	}
	t.kept[c] = k
}

var errTokenRefused = errors.New("token endpoint refused the client")

// fetch asks with HTTP Basic, which every server must know, and then with the
// credentials in the form, which some know alone (RFC 6749 §2.3.1).
func (t *tokens) fetch(ctx context.Context, c credentials) (token, error) {
	k, err := t.ask(ctx, c, true)
	if errors.Is(err, errTokenRefused) {
		k, err = t.ask(ctx, c, false)
	}
	return k, err
}

func (t *tokens) ask(ctx context.Context, c credentials, basic bool) (token, error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	if !basic {
		form.Set("client_id", c.id)
		form.Set("client_secret", c.secret)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, strings.NewReader(form.Encode()))
	if err != nil {
		return token{}, ErrTarget
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if basic {
		req.SetBasicAuth(url.QueryEscape(c.id), url.QueryEscape(c.secret))
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return token{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return token{}, err
	case resp.StatusCode == http.StatusBadRequest, resp.StatusCode == http.StatusUnauthorized:
		return token{}, errTokenRefused
	case resp.StatusCode != http.StatusOK:
		return token{}, fmt.Errorf("token endpoint answered %d", resp.StatusCode)
	}
	return readToken(text)
}

// readToken reads the answer of RFC 6749 §5.1.
func readToken(text []byte) (token, error) {
	var answer struct {
		AccessToken string      `json:"access_token"`
		ExpiresIn   json.Number `json:"expires_in"` // some servers quote it
	}
	if err := json.Unmarshal(text, &answer); err != nil || !isToken(answer.AccessToken) {
		return token{}, errors.New("token endpoint gave no access_token that is one")
	}
	life := defaultTokenLife
	if n, err := answer.ExpiresIn.Float64(); err == nil && n > 0 {
		life = time.Duration(min(n, 86400) * float64(time.Second))
		life -= min(tokenMargin, life/10)
	}
	return token{answer.AccessToken, time.Now().Add(life)}, nil
}

// isToken reports whether an access token can be sent: visible ASCII, as a bearer
// token is (RFC 6750 §2.1), and no more than is kept.
func isToken(s string) bool {
	invisible := func(r rune) bool { return r <= ' ' || r >= 0x7f }
	return s != "" && len(s) <= maxToken && !strings.ContainsFunc(s, invisible)
}
