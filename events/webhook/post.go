package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"code.dny.dev/ssrf"
)

// Class is the result of a POST, as a metric label and for operators.
type Class string

// The classes of outcomes; only ClassOK is a success.
const (
	ClassOK      Class = "2xx"
	Class3xx     Class = "3xx" // redirects are not followed
	Class4xx     Class = "4xx"
	Class5xx     Class = "5xx"
	ClassOther   Class = "other" // no HTTP status, or one outside these
	ClassTimeout Class = "timeout"
	ClassConnect Class = "connect" // no connection, or it broke
	ClassTLS     Class = "tls"
	ClassTarget  Class = "target" // private address, or not https
	ClassOAuth   Class = "oauth"  // no access token was given
	ClassKey     Class = "key"    // the signing key is unusable
)

// answer is the outcome of one POST.
type answer struct {
	class     Class
	code      int   // HTTP status, 0 without one
	err       error // why there was no status; without the URL, which may hold secrets
	connected bool  // to the endpoint itself
	took      time.Duration
}

// verdict is what an answer means for the rows that were sent.
func (a answer) verdict() verdict {
	switch {
	case a.class == ClassOK:
		return taken
	case a.code == http.StatusRequestEntityTooLarge:
		return tooLarge
	case a.code == http.StatusRequestTimeout, a.code == http.StatusTooManyRequests, a.code == http.StatusServiceUnavailable:
		return busy
	case a.code != 0:
		return refused
	case a.connected:
		return silent
	}
	return unreached
}

const (
	// maxAnswer bounds what is read of an answer, in octets. A body is read only so that
	// the connection can be used again.
	maxAnswer = 64 << 10
	// stopGrace is how long a POST may go on after the relay was told to stop.
	stopGrace = 5 * time.Second
)

// newClient makes the client that all posts share. It ignores proxies that the
// environment names, because mayDial would see the address of the proxy. It speaks no
// HTTP/2: a consumer could send pings for as long as the connection is kept for the
// next batch, and each is answered. An endpoint has one POST at a time, and gains
// nothing by it.
func (s *Sender) newClient() *http.Client {
	o := s.o
	dialer := &net.Dialer{Timeout: o.RequestTimeout, Control: s.mayDial}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
			MaxIdleConns:           2 * o.MaxPosts,
			MaxIdleConnsPerHost:    4,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: maxAnswer,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// post posts body to e. It does so a second time, with a new access token, when the
// endpoint refused one that was kept.
func (s *Sender) post(ctx context.Context, e Endpoint, body []byte) answer {
	start := time.Now()
	ctx, cancel := lingering(ctx, s.o.RequestTimeout)
	defer cancel()
	a, cached := s.try(ctx, e, body, s.tokens)
	if a.code == http.StatusUnauthorized && cached {
		s.tokens.forget(e)
		a, _ = s.try(ctx, e, body, s.tokens)
	}
	a.took = time.Since(start)
	return a
}

// lingering returns a context for a request that may take up to timeout. The request may
// go on for stopGrace after ctx has ended, because a batch whose answer is not read is
// sent twice.
func lingering(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	c, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	stop := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(stopGrace, cancel)
		context.AfterFunc(c, func() { t.Stop() })
	})
	return c, func() { stop(); cancel() }
}

// try makes one POST. cached reports that it had a token that was kept.
func (s *Sender) try(ctx context.Context, e Endpoint, body []byte, from *tokens) (a answer, cached bool) {
	if CheckURL(e.URL, s.o.AllowInsecure) != nil {
		return answer{class: ClassTarget, err: ErrTarget}, false
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(body))
	if err != nil {
		return answer{class: ClassTarget, err: ErrTarget}, false
	}
	req.Header.Set("User-Agent", "SendGrid Event API")
	req.Header.Set("Content-Type", "application/json;charset=utf-8")
	// Set by hand, so that an answer is never unpacked.
	req.Header.Set("Accept-Encoding", "gzip")
	if len(e.SigningKey) > 0 {
		now := strconv.FormatInt(time.Now().Unix(), 10)
		sig, err := Sign(e.SigningKey, now, body)
		if err != nil {
			return answer{class: ClassKey, err: err}, false
		}
		req.Header.Set(TimestampHeader, now)
		req.Header.Set(SignatureHeader, sig)
	}
	if e.OAuthTokenURL != "" {
		var token string
		if token, cached, err = from.get(ctx, e); err != nil {
			return answer{class: ClassOAuth, err: bare(err)}, false
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return exchange(s.client, req), cached
}

// exchange sends a request and discards the body of the answer.
func exchange(c *http.Client, req *http.Request) answer {
	var connected atomic.Bool // another goroutine sets it
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }}
	resp, err := c.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err != nil {
		return answer{class: classOf(err), err: bare(err), connected: connected.Load()}
	}
	io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	resp.Body.Close()
	a := answer{code: resp.StatusCode, class: ClassOther}
	switch resp.StatusCode / 100 {
	case 2:
		a.class = ClassOK
	case 3:
		a.class = Class3xx
	case 4:
		a.class = Class4xx
	case 5:
		a.class = Class5xx
	}
	return a
}

// classOf sorts the error of a request that got no answer.
func classOf(err error) Class {
	var (
		verify  *tls.CertificateVerificationError
		record  tls.RecordHeaderError
		alert   tls.AlertError
		name    x509.HostnameError
		unknown x509.UnknownAuthorityError
		op      *net.OpError
		timeout net.Error
	)
	switch {
	case errors.Is(err, ErrTarget), errors.Is(err, ssrf.ErrProhibitedIP), errors.Is(err, ssrf.ErrProhibitedNetwork), errors.Is(err, ssrf.ErrProhibitedPort):
		return ClassTarget
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return ClassTimeout
	case errors.As(err, &verify), errors.As(err, &record), errors.As(err, &alert), errors.As(err, &name), errors.As(err, &unknown):
		return ClassTLS
	case errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error"):
		return ClassTLS // crypto/tls wraps alerts so
	}
	return ClassConnect
}

// bare removes the URL that net/http puts around its errors.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
