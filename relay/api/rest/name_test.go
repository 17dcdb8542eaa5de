package rest

import (
	"testing"

	"tlsrelay/policy/account"
)

func TestNamed(t *testing.T) {
	for text, want := range map[string]string{
		"account-id 12": "12", "ACCOUNT-ID 12": "12", "account-id   a b": "a b", "account-id\t7": "7",
		"account-id": "", "account-id12": "", "account": "", "account-idx 12": "", "sub1": "", " sub1 ": "",
	} {
		kind, name := Named(text)
		if got := kind == account.KindCustomer; got != (want != "") || got && name != want {
			t.Errorf("%q: %s %q, want %q", text, kind, name, want)
		}
	}
}
