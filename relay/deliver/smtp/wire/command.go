package wire

import (
	"strconv"
	"strings"

	"tlsrelay/relay"
)

// AppendMail writes the MAIL command with the parameters that the host has
// listed a use for.
func (x Extensions) AppendMail(b []byte, m *relay.Message, size int64, utf8 bool) []byte {
	from, _ := m.From.ASCII()
	b = append(b, "MAIL FROM:<"...)
	b = append(append(b, from...), '>')
	if x.Size {
		b = strconv.AppendInt(append(b, " SIZE="...), size, 10) // RFC 1870
	}
	if x.EightBit && m.EightBit {
		b = append(b, " BODY=8BITMIME"...) // RFC 6152
	}
	if utf8 {
		b = append(b, " SMTPUTF8"...) // RFC 6531
	}
	if x.RequireTLS && m.RequireTLS {
		b = append(b, " REQUIRETLS"...) // RFC 8689 §4.2
	}
	if x.DSN && m.Return != "" {
		b = append(append(b, " RET="...), m.Return...)
	}
	if x.DSN && m.EnvelopeID != "" {
		b = appendXtext(append(b, " ENVID="...), m.EnvelopeID)
	}
	return append(b, "\r\n"...)
}

// AppendRcpt writes the RCPT command.
func (x Extensions) AppendRcpt(b []byte, r *relay.Recipient) []byte {
	to, _ := r.Address.ASCII()
	b = append(b, "RCPT TO:<"...)
	b = append(append(b, to...), '>')
	if x.DSN && r.Notify != 0 {
		b = appendNotify(append(b, " NOTIFY="...), r.Notify)
	}
	if x.DSN && r.Original != "" {
		b = appendOriginal(b, r)
	}
	return append(b, "\r\n"...)
}

func appendNotify(b []byte, n relay.Notify) []byte {
	if n&relay.NotifyNever != 0 {
		return append(b, "NEVER"...) // stands alone (RFC 3461 §4.1)
	}
	comma := false
	for _, x := range [...]struct {
		bit  relay.Notify
		word string
	}{{relay.NotifySuccess, "SUCCESS"}, {relay.NotifyFailure, "FAILURE"}, {relay.NotifyDelay, "DELAY"}} {
		if n&x.bit == 0 {
			continue
		}
		if comma {
			b = append(b, ',')
		}
		b, comma = append(b, x.word...), true
	}
	return b
}

// appendOriginal writes ORCPT. An address beyond ASCII needs the utf-8 type
// (RFC 6533 §3); under another type it cannot be written and is left out.
func appendOriginal(b []byte, r *relay.Recipient) []byte {
	kind := r.OriginalType
	if kind == "" {
		kind = "rfc822"
	}
	utf8 := len(kind) == 5 && (kind[0]|0x20) == 'u'
	for i := range len(r.Original) {
		if r.Original[i] >= 0x80 && !utf8 {
			return b
		}
	}
	b = append(append(append(b, " ORCPT="...), kind...), ';')
	if utf8 {
		return appendUTF8Xtext(b, r.Original)
	}
	return appendXtext(b, r.Original)
}

const hexDigits = "0123456789ABCDEF"

// appendXtext writes RFC 3461 §4 xtext. Every octet that could end the
// parameter or the line is written as hexadecimal.
func appendXtext(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c > ' ' && c < 0x7f && c != '+' && c != '=' {
			b = append(b, c)
		} else {
			b = append(b, '+', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return b
}

// appendUTF8Xtext writes the 7-bit form of RFC 6533 §3.
func appendUTF8Xtext(b []byte, s string) []byte {
	for _, r := range s {
		if r > ' ' && r < 0x7f && r != '+' && r != '=' && r != '\\' {
			b = append(b, byte(r))
			continue
		}
		b = append(b, `\x{`...)
		if r < 0x10 {
			b = append(b, '0')
		}
		b = append(append(b, strings.ToUpper(strconv.FormatInt(int64(r), 16))...), '}')
	}
	return b
}
