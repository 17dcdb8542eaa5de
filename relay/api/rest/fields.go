package rest

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Object is a JSON object that is read field by field. Reading never fails at
// once: what is wrong with each field is collected, and Err reports all of
// it. Keys are compared exactly.
type Object struct {
	raw    map[string]json.RawMessage
	faults []FieldFault
}

// ParseObject reads one JSON object and nothing after it. Of a key that is
// there twice, the last holds.
func ParseObject(body []byte) (*Object, error) {
	var o Object
	if err := json.Unmarshal(body, &o.raw); err != nil || o.raw == nil {
		return nil, notJSON()
	}
	return &o, nil
}

// Err is nil when every field read so far was right; else it is a *Fault.
func (o *Object) Err() error {
	if len(o.faults) == 0 {
		return nil
	}
	return Invalid(o.faults...)
}

// Wrong notes what is wrong with a field.
func (o *Object) Wrong(name, message string) {
	o.faults = append(o.faults, AboutField(name, message))
}

// Has reports whether a field is there.
func (o *Object) Has(name string) bool {
	_, ok := o.raw[name]
	return ok
}

// Raw is the JSON of a field, "" when it is not there.
func (o *Object) Raw(name string) string { return string(o.raw[name]) }

// Len is the number of fields.
func (o *Object) Len() int { return len(o.raw) }

// Unquoted is Raw, or the text where a field is one: for callers that say "1.2" and
// mean 1.2.
func (o *Object) Unquoted(name string) string {
	var text string
	if json.Unmarshal(o.raw[name], &text) == nil {
		return text
	}
	return o.Raw(name)
}

// Require notes that a field is missing.
func (o *Object) Require(name string) {
	if !o.Has(name) {
		o.Wrong(name, name+" is required")
	}
}

// Bool reads true or false into to, and nothing else.
func (o *Object) Bool(name string, to *bool) {
	raw, ok := o.raw[name]
	switch {
	case !ok:
	case string(raw) == "true":
		*to = true
	case string(raw) == "false":
		*to = false
	default:
		o.Wrong(name, name+" must be a boolean")
	}
}

// Count reads a whole number.
func (o *Object) Count(name string, to *int) {
	raw, ok := o.raw[name]
	if !ok {
		return
	}
	n, err := strconv.Atoi(string(raw))
	if err != nil || n < 0 {
		o.Wrong(name, name+" must be a whole number, and must not be negative")
		return
	}
	*to = n
}

// Text reads a string of at most most octets, without control characters.
func (o *Object) Text(name string, most int, to *string) {
	raw, ok := o.raw[name]
	if !ok {
		return
	}
	var s string
	switch {
	case raw[0] != '"' || json.Unmarshal(raw, &s) != nil:
		o.Wrong(name, name+" must be a string")
	case len(s) > most:
		o.Wrong(name, name+" must be at most "+strconv.Itoa(most)+" characters")
	case !utf8.ValidString(s) || strings.ContainsFunc(s, isControl):
		o.Wrong(name, name+" must not contain control characters")
	default:
		*to = s
	}
}

// TextOrNull is Text for a field that null empties.
func (o *Object) TextOrNull(name string, most int, to *string) {
	if string(o.raw[name]) == "null" {
		*to = ""
		return
	}
	o.Text(name, most, to)
}

// Texts reads an array of strings.
func (o *Object) Texts(name string, to *[]string) {
	raw, ok := o.raw[name]
	if !ok {
		return
	}
	var elements []*string
	if raw[0] != '[' || json.Unmarshal(raw, &elements) != nil || slices.Contains(elements, nil) {
		o.Wrong(name, name+" must be an array of strings")
		return
	}
	list := make([]string, len(elements))
	for i, e := range elements {
		list[i] = *e
	}
	*to = list
}

// Unsupported refuses settings that this relay does not have: nobody who asks
// to demand more, or only to be told, believes then that it was done. To say
// that they are off is true.
func (o *Object) Unsupported(names ...string) {
	for _, name := range names {
		if raw, ok := o.raw[name]; ok && string(raw) != "false" {
			o.Wrong(name, name+" is not supported")
		}
	}
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
