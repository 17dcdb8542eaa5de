package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// tokens fetches access tokens by the client credentials grant (RFC 6749
// §4.4) and keeps them until they expire.
//
// Everything that others can make larger has a bound: the answer of a token endpoint
// (maxAnswer), the token in it (maxToken), its life (maxTokenLife), the time of a fetch
// (the POST it is for may take no longer), and the tokens kept, of one account
// (MaxPerAccount) and of all (maxTokens). An endpoint has one loop, so it fetches one
// token at a time. A failed fetch is a failed POST, and delays the next one as such.
type tokens struct {
	client   *http.Client
	insecure bool

	mu    sync.Mutex
	kept  map[string][]keptToken // by account, the one fetched last at the end
	count int                    // of all accounts
	swept time.Time              // when those past their end were last dropped
}

// credentials are all that a token depends on. An endpoint whose secret was changed must
// not use the token of the old secret.
type credentials struct{ url, id, secret string }

type token struct {
	value string
	until time.Time
}

type keptToken struct {
	credentials
	token
}

const (
	// How long a token without expires_in is kept; a 401 ends it earlier.
	defaultTokenLife = 10 * time.Minute
	maxTokenLife     = 24 * time.Hour
	// A token this close to its end is not used: it might expire on the way.
	tokenMargin = 30 * time.Second
	// maxToken bounds an access token in octets.
	maxToken = 4 << 10
	// maxTokens bounds the tokens of all accounts: 40 MB at most. A token that is not
	// kept is fetched again.
	maxTokens = 10_000
	// How often tokens past their end are looked for.
	sweepTokens = time.Minute
)

func credentialsOf(e Endpoint) credentials {
	return credentials{e.OAuthTokenURL, e.OAuthClientID, e.OAuthClientSecret}
}

// get returns the token for e; cached reports that it was fetched before.
func (t *tokens) get(ctx context.Context, e Endpoint) (value string, cached bool, err error) {
	c := credentialsOf(e)
	if k, ok := t.find(e.Account, c); ok && time.Now().Before(k.until) {
		return k.value, true, nil
	}
	if err := CheckURL(c.url, t.insecure); err != nil {
		return "", false, err
	}
	k, err := t.fetch(ctx, c)
	if err != nil {
		return "", false, err
	}
	t.keep(e.Account, keptToken{c, k})
	return k.value, false, nil
}

func (t *tokens) find(account string, c credentials) (token, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range t.kept[account] {
		if k.credentials == c {
			return k.token, true
		}
	}
	return token{}, false
}

func (t *tokens) forget(e Endpoint) {
	c := credentialsOf(e)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(e.Account, func(k keptToken) bool { return k.credentials == c })
}

// keep keeps a token. An account with as many tokens as it may have webhooks loses the
// one it fetched first. When all accounts together have too many, any account loses its
// tokens.
func (t *tokens) keep(account string, k keptToken) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep(time.Now())
	t.drop(account, func(old keptToken) bool { return old.credentials == k.credentials })
	if own := t.kept[account]; len(own) >= MaxPerAccount {
		oldest := own[0].credentials
		t.drop(account, func(old keptToken) bool { return old.credentials == oldest })
	}
	for other := range t.kept {
		if t.count < maxTokens {
			break
		}
		t.drop(other, func(keptToken) bool { return true })
	}
	if t.kept == nil {
		t.kept = make(map[string][]keptToken)
	}
	t.kept[account] = append(t.kept[account], k)
	t.count++
}

// sweep drops what is past its end. The caller holds t.mu.
func (t *tokens) sweep(now time.Time) {
	if now.Sub(t.swept) < sweepTokens {
		return
	}
	t.swept = now
	for account := range t.kept {
		t.drop(account, func(k keptToken) bool { return !now.Before(k.until) })
	}
}

// drop drops tokens of an account. The caller holds t.mu.
func (t *tokens) drop(account string, which func(keptToken) bool) {
	own := t.kept[account]
	left := slices.DeleteFunc(own, which)
	t.count -= len(own) - len(left)
	if len(left) == 0 {
		delete(t.kept, account)
	} else {
		t.kept[account] = left
	}
}

func (t *tokens) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
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
		life = time.Duration(min(n, maxTokenLife.Seconds()) * float64(time.Second))
		life -= min(tokenMargin, life/10)
	}
	return token{answer.AccessToken, time.Now().Add(life)}, nil
}

// isToken reports whether an access token can be sent: it is visible ASCII, as a bearer
// token is (RFC 6750 §2.1), and not longer than maxToken.
func isToken(s string) bool {
	invisible := func(r rune) bool { return r <= ' ' || r >= 0x7f }
	return s != "" && len(s) <= maxToken && !strings.ContainsFunc(s, invisible)
}
