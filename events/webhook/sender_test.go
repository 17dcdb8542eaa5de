package webhook

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sendgrid/sendgrid-go/helpers/eventwebhook"
	"go.uber.org/zap"
)

// A failure, a lost answer, then success: every event arrives, and what
// arrives again has the id it had.
func TestEveryEventArrives(t *testing.T) {
	rec := receive(t, func(n int, w http.ResponseWriter, r *http.Request) {
		switch n {
		case 1:
			w.WriteHeader(500)
		case 2:
			hang(r) // recorded, but the sender never learns
		default:
			w.WriteHeader(202)
		}
	})
	box := newMemory(rec.endpoint("e"))
	o := quick(rec)
	o.RequestTimeout = 2 * time.Second // for one that hangs, and only for that
	s, stop := running(t, o, box)
	want := box.commit("e", 5)
	want = append(want, box.commit("e", 5)...)
	box.drained(t, "e")
	stop() // so that all is counted
	for range 2 {
		if got := rec.next(t).ids; !slices.Equal(got, want[:len(got)]) {
			t.Errorf("tried %v", got)
		}
	}
	var got []string
	for len(got) < len(want) {
		got = append(got, rec.next(t).ids...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	rec.none(t)
	if n := total(t, s.m.sent); n != 10 {
		t.Errorf("%v events counted as sent", n)
	}
	if n := total(t, s.m.posts.WithLabelValues("timeout")); n != 1 {
		t.Errorf("%v timeouts counted", n)
	}
}

func TestHeaders(t *testing.T) {
	rec := receive(t, nil)
	e := rec.endpoint("e")
	e.URL = strings.Replace(e.URL, "https://", "https://user:p%40ss@", 1)
	box := newMemory(e)
	running(t, quick(rec), box)
	box.commit("e", 1)
	h := rec.next(t).header
	for key, want := range map[string]string{
		"User-Agent": "SendGrid Event API", "Content-Type": "application/json;charset=utf-8", "Accept-Encoding": "gzip",
		"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte("user:p@ss")),
		SignatureHeader: "", TimestampHeader: "",
	} {
		if h.Get(key) != want {
			t.Errorf("%s: %q, want %q", key, h.Get(key), want)
		}
	}
}

// Neither a dead endpoint nor one that answers too late delays another, even
// when there are more of them than slots.
func TestSlowEndpointsDelayNobody(t *testing.T) {
	release := make(chan struct{})
	slow := receive(t, func(_ int, _ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		case <-release:
		}
	})
	defer close(release)
	good := receive(t, nil)
	dead := httptest.NewServer(nil)
	dead.Close()

	es := []Endpoint{good.endpoint("good"), {ID: "dead", Enabled: true, URL: dead.URL}}
	for _, id := range []string{"s1", "s2", "s3", "s4", "s5", "s6"} {
		es = append(es, slow.endpoint(id))
	}
	box := newMemory(es...)
	o := quick(slow)
	o.RootCAs.AddCert(good.Certificate())
	o.MaxPosts, o.RequestTimeout = 4, 100*time.Millisecond
	s, _ := running(t, o, box)
	for _, e := range es[1:] {
		box.commit(e.ID, 3)
	}
	for range 6 {
		slow.next(t) // all have failed, or are about to
	}
	for range 20 {
		box.commit("good", 1)
		box.drained(t, "good")
	}
	if n := total(t, s.m.posts.WithLabelValues("2xx")); n < 20 {
		t.Errorf("%v posts succeeded", n)
	}
	for _, st := range s.Status() {
		if st.ID != "good" && (st.Oldest.IsZero() || st.Lag <= 0) {
			t.Errorf("status %+v", st)
		}
	}
	if box.waiting("dead") != 3 || box.waiting("s1") != 3 {
		t.Error("events of a failing endpoint are gone")
	}
}

func TestSignature(t *testing.T) {
	key, err := NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	public, err := PublicKey(key)
	if err != nil || len(public) != 124 {
		t.Fatalf("public key %q (%d characters): %v", public, len(public), err)
	}
	rec := receive(t, nil)
	e := rec.endpoint("e")
	e.SigningKey = key
	box := newMemory(e)
	running(t, quick(rec), box)
	box.commit("e", 3)
	p := rec.next(t)
	sig, stamp := p.header.Get(SignatureHeader), p.header.Get(TimestampHeader)

	theirs, err := eventwebhook.ConvertPublicKeyBase64ToECDSA(public)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := eventwebhook.VerifySignature(theirs, p.body, sig, stamp); err != nil || !ok {
		t.Errorf("SendGrid's helper: %v %v", ok, err)
	}
	if ok, _ := eventwebhook.VerifySignature(theirs, append(p.body, ' '), sig, stamp); ok {
		t.Error("SendGrid's helper takes another body")
	}
	der, _ := base64.StdEncoding.DecodeString(public)
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(sig)
	hash := sha256.Sum256(append([]byte(stamp), p.body...))
	if err != nil || !ecdsa.VerifyASN1(parsed.(*ecdsa.PublicKey), hash[:], raw) {
		t.Errorf("crypto/ecdsa refuses the signature: %v", err)
	}
}

// An endpoint that asks for signatures never hears of events without one.
func TestUnusableKeySendsNothing(t *testing.T) {
	rec := receive(t, nil)
	e := rec.endpoint("e")
	e.SigningKey = []byte("not a key")
	s := New(quick(rec), newMemory(e), zap.NewNop(), nil)
	if a := s.post(context.Background(), e, []byte("[]")); a.class != ClassKey {
		t.Errorf("%+v", a)
	}
	rec.none(t)
}

// What was under way when the relay stopped goes out again after the start.
func TestRestartMidBatch(t *testing.T) {
	var dying atomic.Bool
	dying.Store(true)
	rec := receive(t, func(_ int, _ http.ResponseWriter, r *http.Request) {
		if dying.Load() {
			hang(r)
		}
	})
	box := newMemory(rec.endpoint("e"))
	o := quick(rec)
	o.RequestTimeout = 200 * time.Millisecond
	_, stop := running(t, o, box)
	want := box.commit("e", 4)
	first := rec.next(t)
	stop()
	if box.waiting("e") != 4 {
		t.Fatalf("%d wait", box.waiting("e"))
	}
	dying.Store(false)
	running(t, quick(rec), box)
	box.drained(t, "e")
	for {
		p := rec.next(t)
		if len(p.ids) == 4 && slices.Equal(p.ids, want) {
			break
		}
		if !slices.Equal(p.ids, first.ids) {
			t.Fatalf("posted %v", p.ids)
		}
	}
}

// A post under way when the order to stop comes is finished and marked.
func TestStopFinishesPost(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	rec := receive(t, func(int, http.ResponseWriter, *http.Request) {
		close(entered)
		<-release
	})
	box := newMemory(rec.endpoint("e"))
	_, stop := running(t, quick(rec), box)
	box.commit("e", 1)
	<-entered
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	select {
	case <-stopped:
		t.Error("stopped before the answer came")
	case <-time.After(20 * time.Millisecond):
	}
	close(release)
	<-stopped
	if box.waiting("e") != 0 {
		t.Error("the event was not marked")
	}
}

func TestFailureToRemoveDoesNotPostAgain(t *testing.T) {
	rec := receive(t, nil)
	box := newMemory(rec.endpoint("e"))
	box.removeFails = 3
	running(t, quick(rec), box)
	box.commit("e", 2)
	box.drained(t, "e")
	rec.next(t)
	rec.none(t)
}

func TestPollFindsWhatNobodyToldOf(t *testing.T) {
	rec := receive(t, nil)
	box := newMemory(rec.endpoint("e"))
	box.mute = true
	running(t, quick(rec), box)
	box.commit("e", 1)
	box.drained(t, "e")
}

func TestTooLargeBatchIsHalved(t *testing.T) {
	const limit = 2000
	rec := receive(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > limit {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	})
	box := newMemory(rec.endpoint("e"))
	want := box.commit("e", 40)
	running(t, quick(rec), box)
	box.drained(t, "e")
	var got []string
	refused := 0
	for len(got) < len(want) {
		if p := rec.next(t); len(p.body) > limit {
			refused++
		} else {
			got = append(got, p.ids...)
		}
	}
	if !slices.Equal(got, want) || refused < 2 || refused > 5 {
		t.Errorf("%d refused, got %v", refused, got)
	}
}

func TestOutcomes(t *testing.T) {
	elsewhere := receive(t, nil)
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request)
		want   Class
		means  verdict
	}{
		{"200", func(w http.ResponseWriter, _ *http.Request) {}, ClassOK, taken},
		{"204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, ClassOK, taken},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, Class3xx, refused},
		{"404", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, Class4xx, refused},
		{"408", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(408) }, Class4xx, busy},
		{"413", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(413) }, Class4xx, tooLarge},
		{"429", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }, Class4xx, busy},
		{"500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, Class5xx, refused},
		{"503", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, Class5xx, busy},
		{"600", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(600) }, ClassOther, refused},
		{"hang", func(_ http.ResponseWriter, r *http.Request) { hang(r) }, ClassTimeout, silent},
		{"cut", func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, ClassConnect, silent},
		{"endless body", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}, ClassOK, taken},
	} {
		t.Run(c.name, func(t *testing.T) {
			rec := receive(t, func(_ int, w http.ResponseWriter, r *http.Request) { c.answer(w, r) })
			o := quick(rec)
			if c.want == ClassTimeout {
				o.RequestTimeout = 200 * time.Millisecond
			}
			s := New(o, newMemory(), zap.NewNop(), nil)
			defer s.client.CloseIdleConnections()
			if a := s.post(context.Background(), rec.endpoint("e"), []byte("[{}]\r\n")); a.class != c.want || a.verdict() != c.means {
				t.Errorf("%+v, want %s", a, c.want)
			}
		})
	}
	elsewhere.none(t)
}

func TestConnectionIsKept(t *testing.T) {
	rec := receive(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 10000)) })
	s := New(quick(rec), newMemory(), zap.NewNop(), nil)
	defer s.client.CloseIdleConnections()
	conns := make(map[string]bool)
	for range 5 {
		s.post(context.Background(), rec.endpoint("e"), []byte("[{}]\r\n"))
		conns[rec.next(t).from] = true
	}
	if len(conns) != 1 {
		t.Errorf("connections from %v", conns)
	}
}

func TestTLSOfEndpoints(t *testing.T) {
	rec := receive(t, nil)
	strict := New(Options{AllowInsecure: true}, newMemory(), zap.NewNop(), nil)
	if a := strict.post(context.Background(), rec.endpoint("e"), []byte("[{}]\r\n")); a.class != ClassTLS || a.verdict() != unreached {
		t.Errorf("unknown issuer: %+v", a)
	}
	e := rec.endpoint("e")
	e.URL = strings.Replace(e.URL, "127.0.0.1", "localhost", 1)
	named := New(quick(rec), newMemory(), zap.NewNop(), nil)
	if a := named.post(context.Background(), e, []byte("[{}]\r\n")); a.class != ClassTLS {
		t.Errorf("wrong name: %+v", a)
	}
	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	oldTLS(old)
	old.StartTLS()
	defer old.Close()
	o := quick(rec)
	o.RootCAs.AddCert(old.Certificate())
	a := New(o, newMemory(), zap.NewNop(), nil).post(context.Background(), Endpoint{URL: old.URL}, []byte("[{}]\r\n"))
	if a.class != ClassTLS {
		t.Errorf("TLS 1.1: %+v", a)
	}
	rec.none(t)
}

func TestTargets(t *testing.T) {
	rec := receive(t, nil)
	o := quick(rec)
	o.AllowInsecure = false
	s := New(o, newMemory(), zap.NewNop(), nil)
	for _, url := range []string{
		rec.URL,
		strings.Replace(rec.URL, "127.0.0.1", "localhost", 1), // refused only when it is dialled
		"https://[::1]:443/", "https://10.0.0.1/", "https://127.0.0.1./", "https://\uff11\uff12\uff17.0.0.1/", "https://127\u30020.0.1/", "https://0x7f.1/", "https://0177.0.0.1/", "https://]]x/",
		"https://example.com:0/", "https://example.com:65536/", "https://169.254.169.254/latest", "https://[::ffff:127.0.0.1]/",
		"http://example.com/", "ftp://example.com/", "https:///x", "https:example.com", "example.com", "https://%zz/", "",
	} {
		e := Endpoint{URL: url}
		if a := s.post(context.Background(), e, []byte("[{}]\r\n")); a.class != ClassTarget || a.verdict() != unreached {
			t.Errorf("%q: %+v", url, a)
		}
		if s.Test(context.Background(), e) == nil {
			t.Errorf("%q: the test call goes there", url)
		}
	}
	// A token URL is a target as well.
	e := Endpoint{URL: "https://example.invalid/", OAuthTokenURL: rec.URL}
	if a := s.post(context.Background(), e, []byte("[{}]\r\n")); a.class != ClassOAuth || a.verdict() != unreached {
		t.Errorf("token URL: %+v", a)
	}
	rec.none(t)
	for url, want := range map[string]error{
		"https://u:p@example.com:8443/x?y": nil, "https://192.0.2.1/": ErrTarget, "https://8.8.8.8/": nil,
		"http://example.com": ErrTarget, "https://localhost/": nil,
	} {
		if got := CheckURL(url, false); got != want {
			t.Errorf("CheckURL(%q): %v", url, got)
		}
	}
	if err := CheckURL("http://127.0.0.1:80/", true); err != nil {
		t.Error(err)
	}
}

func TestTestCall(t *testing.T) {
	rec := receive(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 3 {
			w.WriteHeader(404)
		}
	})
	s := New(quick(rec), newMemory(), zap.NewNop(), prometheus.NewPedanticRegistry())
	defer s.client.CloseIdleConnections()
	e := Endpoint{URL: rec.URL}
	e.SigningKey, _ = NewSigningKey()
	if err := s.Test(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	first := rec.next(t)
	for _, kind := range []string{`"processed"`, `"deferred"`, `"delivered"`, `"bounce"`, `"blocked"`, "TLS required but not supported"} {
		if !strings.Contains(string(first.body), kind) {
			t.Errorf("no %s in %s", kind, first.body)
		}
	}
	if first.header.Get(SignatureHeader) == "" {
		t.Error("not signed")
	}
	s.Test(context.Background(), e)
	seen := make(map[string]bool)
	for _, id := range append(first.ids, rec.next(t).ids...) {
		if seen[id] {
			t.Errorf("id %s twice", id)
		}
		seen[id] = true
	}
	if err := s.Test(context.Background(), e); err == nil || err.Error() != "webhook test: answered 404" {
		t.Errorf("%v", err)
	}
}

func TestErrorsHoldNoSecrets(t *testing.T) {
	rec := receive(t, func(int, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	s := New(quick(rec), newMemory(), zap.NewNop(), nil)
	e := Endpoint{URL: strings.Replace(rec.URL, "://", "://me:hunter2@", 1) + "/?token=hunter2"}
	err := s.Test(context.Background(), e)
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}

// An access token that nobody would send is none.
func TestLongTokenIsRefused(t *testing.T) {
	for size, good := range map[int]bool{maxToken: true, maxToken + 1: false} {
		_, err := readToken(fmt.Appendf(nil, `{"access_token":%q}`, strings.Repeat("x", size)))
		if (err == nil) != good {
			t.Errorf("%d octets: %v", size, err)
		}
	}
}
