package relaytest

import "encoding/binary"

// Hello is what a script looks at in a ClientHello.
type Hello struct {
	Size       int    // of the record's payload, in octets
	ServerName string // "" without the extension
	Ticket     bool   // it offers a session ticket
	MinVersion uint16 // the lowest version that it offers by name; 0: it names none

	// versions is where the type of the supported_versions extension stands
	// in the record, 0 without it.
	versions int
}

// Extension types (RFC 6066 §3, RFC 5077 §3.2, RFC 8446 §4.2).
const (
	extServerName        = 0
	extSessionTicket     = 35
	extPreSharedKey      = 41
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
		case extSessionTicket:
			h.Ticket = h.Ticket || n > 0 // an empty one asks for a ticket
		case extPreSharedKey:
			h.Ticket = true
		case extSupportedVersions:
			h.versions, h.MinVersion = p, lowest(record[p+4:p+4+n])
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

// lowest gives the lowest version of a supported_versions extension.
func lowest(b []byte) (v uint16) {
	for i := 1; i+1 < len(b); i += 2 {
		if w := binary.BigEndian.Uint16(b[i:]); v == 0 || w < v {
			v = w
		}
	}
	return v
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
