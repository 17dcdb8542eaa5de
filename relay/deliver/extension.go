package deliver

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"tlsrelay/policy"
)

// extensions is what one EHLO reply lists.
type extensions struct {
	startTLS policy.Offer

	pipelining, chunking, eightBit, utf8, dsn, requireTLS bool

	size    bool
	maxSize int64 // 0: no limit given
	rcptMax int   // LIMITS (RFC 9422); 0: none
	mailMax int

	list uint64 // the fingerprint of a reply that lists something; 0: none did
}

// parseExtensions reads an EHLO reply. Keywords come in any letter case
// (RFC 5321 §2.4). The first line greets and lists nothing.
// A keyword in ignored, in capitals, is not believed.
func parseExtensions(r reply, ignored []string) extensions {
	x := extensions{startTLS: policy.NotOffered}
	if r.lines > 1 {
		x.list = r.fingerprint()
	}
	first := true
	for line := range r.each {
		if first {
			first = false
			continue
		}
		x.add(line, ignored)
	}
	return x
}

func (x *extensions) add(line []byte, ignored []string) {
	word, params, _ := bytes.Cut(bytes.TrimSpace(line), []byte{' '})
	keyword := strings.ToUpper(string(word))
	if slices.Contains(ignored, keyword) {
		return
	}
	switch keyword {
	case "STARTTLS":
		x.startTLS = policy.Offered
	case "PIPELINING":
		x.pipelining = true
	case "CHUNKING":
		x.chunking = true
	case "8BITMIME":
		x.eightBit = true
	case "SMTPUTF8":
		x.utf8 = true
	case "DSN":
		x.dsn = true
	case "REQUIRETLS":
		x.requireTLS = true
	case "SIZE":
		x.size = true
		if n, err := strconv.ParseInt(string(bytes.TrimSpace(params)), 10, 64); err == nil && n > 0 {
			x.maxSize = n
		}
	case "LIMITS":
		x.limits(params)
	default:
		if x.startTLS == policy.NotOffered && isMasked(word) {
			x.startTLS = policy.Masked
		}
	}
}

// limits reads RFC 9422 §4; a limit that cannot be read is none.
func (x *extensions) limits(params []byte) {
	for p := range bytes.FieldsSeq(params) {
		name, value, _ := bytes.Cut(p, []byte{'='})
		n, err := strconv.Atoi(string(value))
		if err != nil || n <= 0 {
			continue
		}
		switch strings.ToUpper(string(name)) {
		case "RCPTMAX":
			x.rcptMax = n
		case "MAILMAX":
			x.mailMax = n
		}
	}
}

// isMasked recognises a STARTTLS that a middlebox wrote over (row A8): a row
// of X in its place ("XXXXXXXA" is Cisco's), or the word with letters changed.
func isMasked(word []byte) bool {
	w := strings.ToUpper(string(word))
	xs := len(w) - len(strings.TrimLeft(w, "X"))
	if xs >= 4 && len(w)-xs <= 2 && !strings.Contains(w, "-") {
		return true
	}
	const name = "STARTTLS"
	if len(w) != len(name) {
		return false
	}
	same := 0
	for i := range len(name) {
		if w[i] == name[i] {
			same++
		}
	}
	return same >= 4 && same < len(name)
}
