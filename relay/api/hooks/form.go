package hooks

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"tlsrelay/events/webhook"
	"tlsrelay/policy/domain"
	"tlsrelay/relay/api/rest"
)

// settingsView is the settings object. The OAuth secret is not among its fields.
type settingsView struct {
	Enabled             bool       `json:"enabled"`
	URL                 string     `json:"url"`
	AccountStatusChange *bool      `json:"account_status_change,omitempty"` // only when asked for
	GroupResubscribe    bool       `json:"group_resubscribe"`
	Delivered           bool       `json:"delivered"`
	GroupUnsubscribe    bool       `json:"group_unsubscribe"`
	SpamReport          bool       `json:"spam_report"`
	Bounce              bool       `json:"bounce"`
	Deferred            bool       `json:"deferred"`
	Unsubscribe         bool       `json:"unsubscribe"`
	Processed           bool       `json:"processed"`
	Open                bool       `json:"open"`
	Click               bool       `json:"click"`
	Dropped             bool       `json:"dropped"`
	FriendlyName        *string    `json:"friendly_name"`
	ID                  string     `json:"id"`
	OAuthClientID       *string    `json:"oauth_client_id"`
	OAuthTokenURL       *string    `json:"oauth_token_url"`
	PublicKey           string     `json:"public_key,omitempty"` // while signing is on
	Created             *time.Time `json:"created_date"`
	Updated             *time.Time `json:"updated_date"`
}

func view(r *rest.Request, e webhook.Endpoint) (settingsView, error) {
	v := settingsView{
		Enabled: e.Enabled, URL: e.URL, ID: e.ID,
		Delivered: e.Delivered, Bounce: e.Bounce, Deferred: e.Deferred, Processed: e.Processed,
		GroupResubscribe: e.Other["group_resubscribe"], GroupUnsubscribe: e.Other["group_unsubscribe"],
		SpamReport: e.Other["spam_report"], Unsubscribe: e.Other["unsubscribe"],
		Open: e.Other["open"], Click: e.Other["click"], Dropped: e.Other["dropped"],
		FriendlyName:  nullable(e.FriendlyName),
		OAuthClientID: nullable(e.OAuthClientID), OAuthTokenURL: nullable(e.OAuthTokenURL),
		Created: utc(e.Created), Updated: utc(e.Updated),
	}
	if slices.Contains(strings.Split(r.URL.Query().Get("include"), ","), accountStatusChange) {
		on := e.Other[accountStatusChange]
		v.AccountStatusChange = &on
	}
	var err error
	v.PublicKey, err = publicKey(e)
	return v, err
}

func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func utc(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

const accountStatusChange = "account_status_change"

// otherSwitches are the events that this relay never makes: stored, echoed.
func otherSwitches() []string {
	return []string{
		"dropped", "open", "click", "spam_report", "unsubscribe",
		"group_unsubscribe", "group_resubscribe", accountStatusChange,
	}
}

// Bounds of webhook fields.
const (
	maxURL   = 2048
	maxOAuth = 1024
)

// read reads the fields that are there into e. When it returns an
// error, e is not to be used.
func read(o *rest.Object, e *webhook.Endpoint, allowInsecure bool) error {
	o.Bool("enabled", &e.Enabled)
	o.Text("url", maxURL, &e.URL)
	o.Bool("processed", &e.Processed)
	o.Bool("deferred", &e.Deferred)
	o.Bool("delivered", &e.Delivered)
	o.Bool("bounce", &e.Bounce)
	e.Other = maps.Clone(e.Other)
	for _, name := range otherSwitches() {
		on := e.Other[name]
		o.Bool(name, &on)
		if on != e.Other[name] {
			if e.Other == nil {
				e.Other = make(map[string]bool)
			}
			e.Other[name] = on
		}
	}
	o.TextOrNull("friendly_name", 255, &e.FriendlyName)
	url := e.OAuthTokenURL
	o.TextOrNull("oauth_client_id", maxOAuth, &e.OAuthClientID)
	o.TextOrNull("oauth_client_secret", maxOAuth, &e.OAuthClientSecret)
	o.TextOrNull("oauth_token_url", maxURL, &e.OAuthTokenURL)
	if e.OAuthTokenURL != url && !o.Has("oauth_client_secret") {
		// The secret is not shown, so nobody may have it sent to another URL either.
		// Switching OAuth off forgets it, too.
		e.OAuthClientSecret = ""
	}
	if err := o.Err(); err != nil {
		return err
	}
	check(o, *e, allowInsecure)
	return o.Err()
}

// check looks at what the fields come to together.
func check(o *rest.Object, e webhook.Endpoint, allowInsecure bool) {
	if !validURL(e.URL, allowInsecure) {
		o.Wrong("url", "'"+e.URL+"' is not a valid url")
	}
	if e.OAuthTokenURL != "" && !validURL(e.OAuthTokenURL, allowInsecure) {
		o.Wrong("oauth_token_url", "'"+e.OAuthTokenURL+"' is not a valid url")
	}
	if e.OAuthClientID == "" && e.OAuthTokenURL == "" && e.OAuthClientSecret == "" {
		return
	}
	for _, f := range []struct{ name, value string }{
		{"oauth_client_id", e.OAuthClientID},
		{"oauth_client_secret", e.OAuthClientSecret},
		{"oauth_token_url", e.OAuthTokenURL},
	} {
		if f.value == "" {
			o.Wrong(f.name, "oauth_client_id, oauth_client_secret and oauth_token_url go together")
		}
	}
}

// validURL admits what events/webhook would post to. It refuses names that can only be
// local, as private addresses; events/webhook checks what other names resolve to when
// it dials.
func validURL(raw string, allowInsecure bool) bool {
	if webhook.CheckURL(raw, allowInsecure) != nil {
		return false
	}
	u, err := url.Parse(raw)
	if err != nil {
		return false
	}
	name, err := domain.Parse(u.Hostname())
	if err != nil || allowInsecure {
		return true // what is no name is an address, which CheckURL has judged
	}
	return name.Qualified() && !strings.HasSuffix(name.String(), ".localhost")
}

// audited is what the audit line shows of a webhook: no secret, no
// password of a URL.
func audited(e webhook.Endpoint) map[string]any {
	return map[string]any{
		"url": redactedURL(e.URL), "enabled": e.Enabled, "friendly_name": e.FriendlyName,
		"processed": e.Processed, "deferred": e.Deferred, "delivered": e.Delivered, "bounce": e.Bounce,
		"other": e.Other, "signed": len(e.SigningKey) > 0,
		"oauth_client_id": e.OAuthClientID, "oauth_token_url": redactedURL(e.OAuthTokenURL),
	}
}

// redactedURL leaves out what people put secrets into: the password and the
// query.
func redactedURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	if u.RawQuery != "" {
		u.RawQuery = "redacted"
	}
	return u.Redacted()
}
