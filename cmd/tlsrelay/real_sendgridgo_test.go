//go:build realclients

package main

import (
	"reflect"
	"testing"

	"github.com/sendgrid/rest"
	"github.com/sendgrid/sendgrid-go"
	"github.com/sendgrid/sendgrid-go/helpers/eventwebhook"
)

// The settings of the parent, a subuser and a customer account are three
// different things, and strangers have none.
func TestRealSendgridGoSettings(t *testing.T) {
	r := newRig(t)
	r.subuser("sub1")
	if out, err := r.command("account", "create", "--customer", "1234"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const loose = `{"require_tls":false,"require_valid_cert":false,"version":1.1}`
	cases := []struct {
		name, subuser string
		method        rest.Method
		body          string
		code          int
		answer        string
	}{
		{"subuser", "sub1", rest.Patch, `{"require_tls":true,"version":1.2}`, 200, `{"require_tls":true,"require_valid_cert":false,"version":1.2}`},
		{"parent unmoved", "", rest.Get, "", 200, loose},
		{"customer account unmoved", "account-id 1234", rest.Get, "", 200, loose},
		{"customer account", "account-id 1234", rest.Patch, `{"require_valid_cert":true}`, 200, `{"require_tls":false,"require_valid_cert":true,"version":1.1}`},
		{"subuser reads back", "sub1", rest.Get, "", 200, `{"require_tls":true,"require_valid_cert":false,"version":1.2}`},
		{"stranger", "sub2", rest.Get, "", 403, `{"errors":[{"field":null,"message":"access forbidden"}]}`},
		{"bad version", "sub1", rest.Patch, `{"version":1.4}`, 400, `{"errors":[{"message":"version must be one of 1.1, 1.2, 1.3","field":"version","help":null}]}`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			req := sendgrid.GetRequestSubuser(r.key, "/v3/user/settings/enforced_tls", "http://"+r.app.api.addr(), c.subuser)
			req.Method, req.Body = c.method, []byte(c.body)
			res, err := sendgrid.API(req)
			if err != nil {
				t.Fatal(err)
			}
			var got, want any
			r.decode(res.Body, &got)
			r.decode(c.answer, &want)
			if res.StatusCode != c.code || !reflect.DeepEqual(got, want) {
				t.Errorf("%d %s, want %d %s", res.StatusCode, res.Body, c.code, c.answer)
			}
		})
	}
}

// Every batch passes the check of the Go helper, and no forged one does.
func TestRealSendgridGoEventWebhook(t *testing.T) {
	for _, b := range everyKindOfEvent(t) {
		key, err := eventwebhook.ConvertPublicKeyBase64ToECDSA(b.publicKey)
		if err != nil {
			t.Fatal(err)
		}
		h := b.request.Header
		check := func(body []byte) bool {
			ok, err := eventwebhook.VerifySignature(key, body,
				h.Get(eventwebhook.VerificationHTTPHeader), h.Get(eventwebhook.TimestampHTTPHeader))
			if err != nil {
				t.Fatal(err)
			}
			return ok
		}
		if !check(b.request.Body) {
			t.Errorf("refused: %s", b.request.Body)
		}
		if check(append([]byte(" "), b.request.Body...)) {
			t.Errorf("taken although forged: %s", b.request.Body)
		}
	}
}
