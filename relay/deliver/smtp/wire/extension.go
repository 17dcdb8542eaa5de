package wire

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"tlsrelay/policy"
)

// Extensions is what one EHLO reply lists.
type Extensions struct {
	StartTLS policy.Offer

	Pipelining, Chunking, EightBit, UTF8, DSN, RequireTLS bool

	Size    bool
	MaxSize int64 // 0: no limit given
	RcptMax int   // LIMITS (RFC 9422); 0: none
	MailMax int

	List uint64 // the fingerprint of the reply, 0 for one without keywords
}

// ParseExtensions reads an EHLO reply. Keywords come in any letter case
// (RFC 5321 §2.4). The first line greets and lists nothing.
// A keyword in ignored, which has capitals, does not count.
func ParseExtensions(r Reply, ignored []string) Extensions {
	x := Extensions{StartTLS: policy.NotOffered}
	if r.Lines > 1 {
		x.List = r.Fingerprint()
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

func (x *Extensions) add(line []byte, ignored []string) {
	word, params, _ := bytes.Cut(bytes.TrimSpace(line), []byte{' '})
	keyword := strings.ToUpper(string(word))
	if slices.Contains(ignored, keyword) {
		return
	}
	switch keyword {
	case "STARTTLS":
		x.StartTLS = policy.Offered
	case "PIPELINING":
		x.Pipelining = true
	case "CHUNKING":
		x.Chunking = true
	case "8BITMIME":
		x.EightBit = true
	case "SMTPUTF8":
		x.UTF8 = true
	case "DSN":
		x.DSN = true
	case "REQUIRETLS":
		x.RequireTLS = true
	case "SIZE":
		x.Size = true
		if n, err := strconv.ParseInt(string(bytes.TrimSpace(params)), 10, 64); err == nil && n > 0 {
			x.MaxSize = n
		}
	case "LIMITS":
		x.limits(params)
	default:
		if x.StartTLS == policy.NotOffered && isMasked(word) {
			x.StartTLS = policy.Masked
		}
	}
}

// limits reads RFC 9422 §4; a limit that cannot be read is none.
func (x *Extensions) limits(params []byte) {
	for p := range bytes.FieldsSeq(params) {
		name, value, _ := bytes.Cut(p, []byte{'='})
		n, err := strconv.Atoi(string(value))
		if err != nil || n <= 0 {
			continue
		}
		switch strings.ToUpper(string(name)) {
		case "RCPTMAX":
			x.RcptMax = n
		case "MAILMAX":
			x.MailMax = n
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
