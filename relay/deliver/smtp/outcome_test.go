package smtp

import "testing"

// TestSpeaksOfTLS: an address is no word, whatever it is made of.
func TestSpeaksOfTLS(t *testing.T) {
	if !speaksOfTLS("<a@b> needs TLS") || speaksOfTLS("<TLS") || speaksOfTLS("") {
		t.Error("words")
	}
}
