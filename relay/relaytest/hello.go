package relaytest

import "encoding/binary"

// Hello is what a script looks at in a ClientHello.
type Hello struct {
	Size       int    // of the record's payload (tls-policy §10.4)
	ServerName string // "" without the extension

	// versions is where the type of the supported_versions extension stands
	// in the record, 0 without it.
	versions int
}

// Extension types (RFC 6066 §3, RFC 8446 §4.2.1).
const (
	extServerName        = 0
	extSupportedVersions = 43
)

// parseHello reads a record, header included, that begins a handshake. What
// it does not understand it leaves out.
func parseHello(record []byte) Hello {
	const fixed = 5 + 4 + 2 + 32 // record header, handshake header, version, random
	h := Hello{Size: max(len(record)-5, 0)}
	p := fixed
	// Session id, suites and compression methods are vectors with a length of
	// one, two and one octets (RFC 8446 §4.1.2).
	for _, width := range []int{1, 2, 1} {
		n, ok := vector(record, p, width)
		if !ok {
			return h
		}
		p += width + n
	}
	total, ok := vector(record, p, 2)
	if !ok {
		return h
	}
	p += 2
	for end := p + total; p+4 <= end; {
		kind := binary.BigEndian.Uint16(record[p:])
		n, ok := vector(record, p+2, 2)
		if !ok {
			return h
		}
		switch kind {
		case extServerName:
			h.ServerName = serverName(record[p+4 : p+4+n])
		case extSupportedVersions:
			h.versions = p
		}
		p += 4 + n
	}
	return h
}

// vector gives the length of the vector at p, if all of it is there.
func vector(b []byte, p, width int) (n int, ok bool) {
	if p+width > len(b) {
		return 0, false
	}
	for _, c := range b[p : p+width] {
		n = n<<8 | int(c)
	}
	return n, p+width+n <= len(b)
}

// serverName reads the extension's list, which has one entry of type
// host_name in practice.
func serverName(b []byte) string {
	if len(b) < 5 || b[2] != 0 {
		return ""
	}
	n, ok := vector(b, 3, 2)
	if !ok {
		return ""
	}
	return string(b[5 : 5+n])
}
