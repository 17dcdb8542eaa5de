package domain

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	long := strings.Repeat(label63+".", 3) + strings.Repeat("b", 61) // 253 octets
	for _, c := range []struct{ in, want string }{
		{"example.com", "example.com"},
		{"EXAMPLE.Com", "example.com"},
		{"example.com.", "example.com"},
		{"R3---SN.example", "r3---sn.example"},
		{"localhost", "localhost"},
		{"bücher.example", "xn--bcher-kva.example"},
		{"BÜCHER.example", "xn--bcher-kva.example"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"XN--BCHER-KVA.example", "xn--bcher-kva.example"},
		{"faß.de", "xn--fa-hia.de"}, // IDNA 2008, not its transition
		{"例え。テスト", "xn--r8jz45g.xn--zckzah"},
		{"_mta-sts.example.com", "_mta-sts.example.com"},
		{"mail_host.example.com", "mail_host.example.com"},
		{"1.example", "1.example"},
		{"a--b.example", "a--b.example"},
		{label63 + ".test", label63 + ".test"},
		{long, long},
	} {
		n, err := Parse(c.in)
		if err != nil || n.String() != c.want {
			t.Errorf("%q: %q, %v; want %q", c.in, n, err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{
		"", ".", "..", "a..b", ".example.com", "example.com..", "-a.example", "a-.example",
		"a b.example", "a@b.example", "a/b.example", `a\b.example`, "a\x00b.example", "a\r\nb.example",
		"192.0.2.1", "192.0.2.1.", "127.1", "1", "a.1", "[192.0.2.1]", "2001:db8::1", "::1",
		"xn--.example", "xn--a\x80.example", "\xff.example", "\ufffd.example", "a\u00adb\u200b..example",
		strings.Repeat("a", 64) + ".test",
		strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("b", 62),
		strings.Repeat("ü", 600),
	} {
		if n, err := Parse(s); err == nil {
			t.Errorf("%q became %q", s, n)
		}
	}
}

func TestQualified(t *testing.T) {
	for s, want := range map[string]bool{
		"example.com": true, "example.com.": true, "mx_1.example": true,
		"localhost": false, "localhost.": false, "relay-01": false, "xn--bcher-kva": false,
	} {
		if MustParse(s).Qualified() != want {
			t.Errorf("%s: want %v", s, want)
		}
	}
	if (Name{}).Qualified() {
		t.Error("no name is qualified")
	}
}

func TestText(t *testing.T) {
	in := map[Name]Name{MustParse("a.test"): MustParse("b.test")}
	b, err := json.Marshal(in)
	if err != nil || string(b) != `{"a.test":"b.test"}` {
		t.Fatalf("%s, %v", b, err)
	}
	var out map[Name]Name
	if err := json.Unmarshal(b, &out); err != nil || out[MustParse("A.test.")] != MustParse("b.test") {
		t.Errorf("%v, %v", out, err)
	}
	var n Name
	if err := n.UnmarshalText(nil); err != nil || !n.IsZero() {
		t.Errorf("empty text: %v, %v", n, err)
	}
	if n.UnmarshalText([]byte("no name")) == nil {
		t.Error("a bad name was unmarshalled")
	}
	defer func() {
		if recover() == nil {
			t.Error("MustParse took a bad name")
		}
	}()
	MustParse("a..b")
}

// FuzzParse holds every name to being canonical: parsing what came out gives
// the same, and nothing in it can end a command or a record early.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"example.com", "BÜCHER.example.", "xn--bcher-kva.example", "192.0.2.1", "例え。テスト", "xn--a.xn--b", "a_b.-c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Parse(s)
		if err != nil {
			if !n.IsZero() {
				t.Errorf("%q: a name beside an error", s)
			}
			return
		}
		again, err := Parse(n.String())
		if err != nil || again != n {
			t.Errorf("%q gave %q, and that %q, %v", s, n, again, err)
		}
		if len(n.String()) > 253 || strings.ToLower(n.String()) != n.String() {
			t.Errorf("%q gave %q", s, n)
		}
		for i := range len(n.String()) {
			if c := n.String()[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`<>@"()[]\;:,`, c) >= 0 {
				t.Errorf("%q gave %q", s, n)
			}
		}
	})
}
