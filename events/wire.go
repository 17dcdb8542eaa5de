package events

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"tlsrelay/events/jsonobject"
)

// AppendJSON appends the webhook form of e to dst. It is one JSON object as SendGrid
// writes it: the keys in alphabetical order, the unique args among them, with the escapes
// of the Go encoder. The result is valid JSON in valid UTF-8, whatever is in the strings
// of e: octets that are not UTF-8 become U+FFFD, and a category that is not a JSON string
// or array is left out.
func (e Event) AppendJSON(dst []byte) []byte {
	return e.appendJSON(dst, e.Common())
}

// appendJSON appends the webhook form of e with the fields of c; nil: without these.
func (e *Event) appendJSON(dst []byte, c *Common) []byte {
	o := object{Writer: jsonobject.Begin(dst)}
	if c != nil {
		o.args = sortedArgs(c.UniqueArgs)
	}
	met := e.Kind != Processed // some attempt was made, so the session fields apply
	if e.Kind == Deferred {
		o.key("attempt")
		o.Octets = append(strconv.AppendInt(append(o.Octets, '"'), int64(e.Attempt), 10), '"')
	}
	if e.Kind == Bounce && e.Classification != "" {
		o.text("bounce_classification", e.Classification)
	}
	if c != nil && isCategory(c.Category) {
		o.argsBefore("category")
		o.Raw("category", c.Category)
	}
	if met && e.CertErr {
		o.number("cert_err", 1)
	}
	o.text("email", e.Email)
	o.text("event", string(e.Kind))
	if met && e.IP != "" {
		o.text("ip", e.IP)
	}
	if e.Kind == Bounce {
		o.text("reason", e.Reply)
	} else if met {
		o.text("response", e.Reply)
	}
	o.text("sg_event_id", e.ID)
	o.key("sg_message_id")
	o.Octets = e.appendMessageID(o.Octets)
	if c != nil {
		o.text("smtp-id", c.SMTPID)
	}
	if e.Kind == Bounce {
		o.text("status", e.Status)
	}
	o.number("timestamp", e.At.Unix())
	if met {
		o.number("tls", bit(e.TLS))
	}
	if e.Kind == Bounce {
		o.text("type", string(e.Type))
	}
	o.argsBefore("")
	dst, _ = o.End() // no field of it can fail
	return dst
}

// AppendBody appends the body of a POST with the objects. Signatures are over its octets,
// so its layout is SendGrid's: CRLF after every comma between objects and after the
// closing bracket.
func AppendBody(dst []byte, objects ...[]byte) []byte {
	dst = append(dst, '[')
	for i, o := range objects {
		if i > 0 {
			dst = append(dst, ",\r\n"...)
		}
		dst = append(dst, o...)
	}
	return append(dst, "]\r\n"...)
}

// isBuiltIn reports whether events of some kind have a field of that name. A unique arg
// with such a name is left out of all kinds, as at SendGrid, because a consumer that expects a
// number in "tls" must not find a string.
func isBuiltIn(key string) bool {
	switch key {
	case "asm_group_id", "attempt", "bounce_classification", "category", "cert_err", "email", "event", "ip",
		"pool", "reason", "response", "send_at", "sg_event_id", "sg_message_id", "smtp-id", "status",
		"timestamp", "tls", "type":
		return true
	}
	return false
}

type arg struct{ key, value string }

// sortedArgs returns the unique args that go out, in the order of their keys.
func sortedArgs(m map[string]string) []arg {
	if len(m) == 0 {
		return nil
	}
	to := make([]arg, 0, len(m))
	for k, v := range m {
		if !utf8.ValidString(k) {
			k = strings.ToValidUTF8(k, "\ufffd")
		}
		if !isBuiltIn(k) {
			to = append(to, arg{k, v})
		}
	}
	// By value, too: of keys that became equal, the same one must always win.
	slices.SortFunc(to, func(a, b arg) int {
		return cmp.Or(strings.Compare(a.key, b.key), strings.Compare(a.value, b.value))
	})
	return slices.CompactFunc(to, func(a, b arg) bool { return a.key == b.key })
}

// object writes the fields of an event in the order of their keys, with the unique
// args among them. The built-in fields must come in alphabetical order.
type object struct {
	jsonobject.Writer
	args []arg // not yet written
}

// key writes the args that sort before a built-in field, and its key.
func (o *object) key(name string) {
	o.argsBefore(name)
	o.Key(name)
}

func (o *object) text(name, value string) {
	o.argsBefore(name)
	o.Text(name, value)
}

func (o *object) number(name string, n int64) {
	o.argsBefore(name)
	o.Int(name, n)
}

// argsBefore writes the args that sort before name; "" means all.
func (o *object) argsBefore(name string) {
	for len(o.args) > 0 && (name == "" || o.args[0].key < name) {
		o.EscapedText(o.args[0].key, o.args[0].value)
		o.args = o.args[1:]
	}
}

// appendMessageID appends sg_message_id in SendGrid's form,
// <id>.recvd-<host>-<n>-<hex>-<hex>.<recipient index>. Consumers compare the part before
// the first dot with the id of the 250 reply. Some compare the whole between events, so
// the middle depends on the message alone: another machine may finish a message.
func (e *Event) appendMessageID(dst []byte) []byte {
	dst = append(dst, '"')
	dst = jsonobject.AppendEscaped(dst, e.MessageID)
	h := fnv1a(e.MessageID)
	dst = append(dst, ".recvd-tlsrelay-1-"...)
	dst = strconv.AppendUint(dst, h>>32, 16)
	dst = strconv.AppendUint(append(dst, '-'), h&0xff, 16)
	dst = strconv.AppendInt(append(dst, '.'), int64(e.Recipient), 10)
	return append(dst, '"')
}

func fnv1a(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// isCategory reports whether raw can stand as the value of "category".
func isCategory(raw json.RawMessage) bool {
	return len(raw) > 0 && (raw[0] == '"' || raw[0] == '[') && json.Valid(raw)
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
