package wire

import (
	"strings"
	"testing"

	"tlsrelay/relay"
)

// TestUTF8Original: an original address of type utf-8 is written as every server
// reads it, in capital digits (RFC 6533 §3).
func TestUTF8Original(t *testing.T) {
	to, _ := relay.ParseAddress("bob@example.test", false)
	r := relay.Recipient{Address: to, OriginalType: "utf-8", Original: "jürgen+x@example.test"}
	if got := string(Extensions{DSN: true}.AppendRcpt(nil, &r)); !strings.Contains(got, `ORCPT=utf-8;j\x{FC}rgen\x{2B}x@example.test`) {
		t.Error(got)
	}
}
