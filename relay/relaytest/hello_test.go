package relaytest

import "testing"

// FuzzHello: a client under test may send anything.
func FuzzHello(f *testing.F) {
	f.Add([]byte{22, 3, 1, 0, 4, 1, 0, 0, 0})
	hello := append([]byte{22, 3, 1, 0, 0, 1, 0, 0, 0, 3, 3}, make([]byte, 32)...)
	hello = append(hello, 0, 0, 2, 0x13, 1, 1, 0, 0, 13, 0, 0, 0, 9, 0, 7, 0, 0, 4, 'm', 'x', '.', 't')
	f.Add(hello)
	if h := parseHello(hello); h.ServerName != "mx.t" {
		f.Fatalf("%+v", h)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if h := parseHello(b); h.Size > len(b) || h.versions > len(b)-4 && h.versions != 0 {
			t.Errorf("%+v of %d octets", h, len(b))
		}
	})
}
