package relaytest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net/http"
	"testing"
	"time"
)

func TestReceiverAnswersInTurn(t *testing.T) {
	r := StartReceiver(t, Response{Status: 503, Body: "later"}, Response{Do: Close}, Response{Status: 204})
	for i, want := range []int{503, 0, 204, 204} {
		// A fresh connection each: the transport repeats a POST by itself
		// only on one that it reused.
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := client.Post(r.URL()+"/hook?x=1", "application/json", bytes.NewReader([]byte(`[{"a":1}]`)))
		switch {
		case want == 0 && err == nil:
			t.Errorf("request %d was answered", i)
		case want != 0 && (err != nil || res.StatusCode != want):
			t.Errorf("request %d: %v %v", i, res, err)
		}
		if err == nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	}
	got := r.Await(t, 4)
	if got[0].Path != "/hook?x=1" || got[0].Method != "POST" || string(got[0].Body) != `[{"a":1}]` {
		t.Errorf("%+v", got[0])
	}
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	events, err := r.WaitEvents(ctx, func(e []map[string]any) bool { return len(e) == 4 })
	if err != nil || events[3]["a"] != 1.0 {
		t.Errorf("%v %v", events, err)
	}
}

func TestReceiverWaitsInVain(t *testing.T) {
	r := StartReceiver(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := r.Wait(ctx, 1); err == nil {
		t.Error("one request out of nothing")
	}
}

func TestReceiverTLS(t *testing.T) {
	ca, err := NewCA()
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewTLSReceiver(ca, Response{Status: 200})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}, DisableKeepAlives: true}
	res, err := (&http.Client{Transport: tr}).Get(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
}

func TestVerify(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := base64.StdEncoding.EncodeToString(der)
	sum := sha256.Sum256([]byte("1600112502[{}]"))
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	q := Request{Header: http.Header{}, Body: []byte("[{}]")}
	q.Header.Set(TimestampHeader, "1600112502")
	q.Header.Set(SignatureHeader, base64.StdEncoding.EncodeToString(sig))
	if err := q.Verify(public); err != nil {
		t.Error(err)
	}
	q.Body = []byte("[{} ]")
	if q.Verify(public) == nil {
		t.Error("a changed body verified")
	}
}
