package wire

import (
	"strings"
	"testing"
	"unicode"

	"tlsrelay/relay"
)

const host = "relay.example"

// FuzzNormalize: a command keeps its meaning, and no line becomes two.
func FuzzNormalize(f *testing.F) {
	f.Add("MAIL FROM : <a@b.example> AUTH=x SIZE=1")
	f.Add(`RCPT TO:<"a>b AUTH=\"c"@d.example> NOTIFY=NEVER`)
	f.Add("RCPT TO:postmaster ")
	f.Add("RCPT TO:<postmaster>NOTIFY=NEVER")
	f.Add("MAIL FROM:< AUTH=")
	f.Fuzz(func(t *testing.T, line string) {
		if strings.ContainsFunc(line, unicode.IsControl) {
			return // neither a line nor an address has any
		}
		got := normalize(line, host)
		if strings.ContainsFunc(got, unicode.IsControl) || len(got) > len(line)+len("<@>")+len(host) {
			t.Fatalf("%q became %q", line, got)
		}
		if again := normalize(got, host); again != got {
			t.Fatalf("%q became %q and %q", line, got, again)
		}
		p, ok := splitPath(line)
		q, still := splitPath(got)
		if ok != still || p.path != q.path && !strings.EqualFold(p.path, "postmaster") {
			t.Fatalf("%q became %q: %q, then %q", line, got, p.path, q.path)
		}
	})
}

// FuzzPath: whatever go-smtp would take, what we read is one valid address
// that comes back as itself.
func FuzzPath(f *testing.F) {
	f.Add(`RCPT TO:<"a>b\"c"@d.example> NOTIFY=NEVER`)
	f.Add(`MAIL FROM: a@b.example SIZE=1`)
	f.Add(`RCPT TO:<a@b`)
	f.Fuzz(func(t *testing.T, line string) {
		p, ok := splitPath(line)
		if !ok {
			return
		}
		a, err := relay.ParseAddress(p.path, true)
		if err != nil {
			return
		}
		again, ok := splitPath("RCPT TO:<" + a.String() + "> NOTIFY=NEVER")
		if b, err := relay.ParseAddress(again.path, true); !ok || err != nil || b != a {
			t.Fatalf("%q -> %q -> %q %v", line, a, again.path, err)
		}
	})
}
