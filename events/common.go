package events

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"tlsrelay/events/jsonobject"
)

// Common is the part of the webhook form that all events of a message share and that its
// sender chooses. It may be many times as large as the rest, and a message has an event
// for each recipient and attempt. So the store keeps the events without it
// ([Event.AppendOwn]), and [Fields.Join] puts it back.
type Common struct {
	SMTPID     string            // Message-ID of the mail, with < >
	Category   json.RawMessage   // string or array, as the sender gave it
	UniqueArgs map[string]string // by name
}

// Common returns what e shares with the other events of its message.
func (e *Event) Common() *Common {
	return &Common{SMTPID: e.SMTPID, Category: e.Category, UniqueArgs: e.UniqueArgs}
}

// Size is about how many octets c adds to an event.
func (c *Common) Size() int {
	n := len(c.SMTPID) + len(c.Category)
	for k, v := range c.UniqueArgs {
		n += len(k) + len(v) + len(`"":"",`)
	}
	return n
}

// AppendOwn appends the webhook form of e without what it shares with the other events of
// its message.
func (e *Event) AppendOwn(dst []byte) []byte { return e.appendJSON(dst, nil) }

// Fields is a [Common] in its webhook form: keys with their values, in order.
type Fields []field

type field struct {
	key  string
	text []byte // "key":value
}

// Fields renders c, once for all events of a message.
func (c *Common) Fields() Fields {
	args := sortedArgs(c.UniqueArgs)
	to := make(Fields, 0, len(args)+2)
	add := func(key string, appendValue func([]byte) []byte) {
		text := append(jsonobject.AppendString(nil, key), ':')
		to = append(to, field{key, appendValue(text)})
	}
	for _, a := range args {
		add(a.key, func(b []byte) []byte { return jsonobject.AppendString(b, a.value) })
	}
	if isCategory(c.Category) {
		add("category", func(b []byte) []byte { return jsonobject.AppendRaw(b, c.Category) })
	}
	add("smtp-id", func(b []byte) []byte { return jsonobject.AppendString(b, c.SMTPID) })
	slices.SortFunc(to, func(a, b field) int { return strings.Compare(a.key, b.key) })
	return to
}

// Size is how many octets f adds to an event.
func (f Fields) Size() (n int) {
	for i := range f {
		n += len(f[i].text) + 1
	}
	return n
}

// Join appends to dst what Event.AppendJSON would: own, which AppendOwn made, with f
// among its fields. own has at least one field.
func (f Fields) Join(dst, own []byte) []byte {
	dst = append(dst, '{')
	for rest := own[1:]; len(rest) > 0; {
		// The keys of own are our own. They have no escapes.
		key := rest[1:]
		if i := bytes.IndexByte(key, '"'); i >= 0 {
			key = key[:i]
		}
		for len(f) > 0 && f[0].key < string(key) {
			dst = append(append(dst, f[0].text...), ',')
			f = f[1:]
		}
		n := fieldLen(rest)
		dst = append(append(dst, rest[:n]...), ',')
		rest = rest[min(n+1, len(rest)):] // without the comma or the last bracket
	}
	for i := range f {
		dst = append(append(dst, f[i].text...), ',')
	}
	dst[len(dst)-1] = '}'
	return dst
}

// fieldLen is the length of the field at the start of b: a key and a value that is a
// string or a number.
func fieldLen(b []byte) int {
	quoted := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == '}'):
			return i
		}
	}
	return len(b)
}
