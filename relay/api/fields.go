package api

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// object is a JSON object being read field by field. Reading never fails at
// once: what is wrong with each field is collected, and err reports all of
// it. Keys are compared exactly, and those that nobody reads are ignored:
// real clients send extra ones (contract §3.3).
type object struct {
	raw    map[string]json.RawMessage
	faults []fieldFault
}

// err is nil when every field read so far was right.
func (o *object) err() error {
	if len(o.faults) == 0 {
		return nil
	}
	return invalid(o.faults...)
}

func (o *object) refuse(name, message string) {
	o.faults = append(o.faults, aboutField(name, message))
}

func (o *object) has(name string) bool {
	_, ok := o.raw[name]
	return ok
}

// boolean reads true or false into to, and nothing else.
func (o *object) boolean(name string, to *bool) {
	raw, ok := o.raw[name]
	switch {
	case !ok:
	case string(raw) == "true":
		*to = true
	case string(raw) == "false":
		*to = false
	default:
		o.refuse(name, name+" must be a boolean")
	}
}

// text reads a string of at most most octets, without control characters.
func (o *object) text(name string, most int, to *string) {
	raw, ok := o.raw[name]
	if !ok {
		return
	}
	var s string
	switch {
	case raw[0] != '"' || json.Unmarshal(raw, &s) != nil:
		o.refuse(name, name+" must be a string")
	case len(s) > most:
		o.refuse(name, name+" must be at most "+strconv.Itoa(most)+" characters")
	case !utf8.ValidString(s) || strings.ContainsFunc(s, isControl):
		o.refuse(name, name+" must not contain control characters")
	default:
		*to = s
	}
}

// textOrNull is text for a field that null empties.
func (o *object) textOrNull(name string, most int, to *string) {
	if string(o.raw[name]) == "null" {
		*to = ""
		return
	}
	o.text(name, most, to)
}

// texts reads an array of strings.
func (o *object) texts(name string, to *[]string) {
	raw, ok := o.raw[name]
	if !ok {
		return
	}
	var elements []*string
	if raw[0] != '[' || json.Unmarshal(raw, &elements) != nil || slices.Contains(elements, nil) {
		o.refuse(name, name+" must be an array of strings")
		return
	}
	list := make([]string, len(elements))
	for i, e := range elements {
		list[i] = *e
	}
	*to = list
}

// unsupported refuses settings that this relay does not have. Nobody who asks
// to demand more, or only to be told, shall believe that it was done; saying
// that they are off is true.
func (o *object) unsupported(names ...string) {
	for _, name := range names {
		if raw, ok := o.raw[name]; ok && string(raw) != "false" {
			o.refuse(name, name+" is not supported")
		}
	}
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
