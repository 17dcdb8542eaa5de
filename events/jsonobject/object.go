// Package jsonobject writes JSON objects field by field. It writes the octets that
// encoding/json would, but without reflection, which would cost a tenth of all that the
// relay does for a message. Package events writes the webhook form of events with it,
// package relay the records of the store.
package jsonobject

import (
	"encoding/json"
	"strconv"
	"time"
)

// Writer is an object that is being written. Begin makes one, End closes it.
type Writer struct {
	// Octets is what has been written. A caller may append a value of its own
	// after Key.
	Octets []byte
	err    error // the first
}

// Begin opens an object behind dst.
func Begin(dst []byte) Writer { return Writer{Octets: append(dst, '{')} }

// End closes the object and returns dst with the object behind it. The error is the first
// one of [Writer.Time] and [Writer.Any].
func (w *Writer) End() ([]byte, error) { return append(w.Octets, '}'), w.err }

func (w *Writer) comma() {
	if w.Octets[len(w.Octets)-1] != '{' {
		w.Octets = append(w.Octets, ',')
	}
}

// Key begins a field. The name needs no escape.
func (w *Writer) Key(name string) {
	w.comma()
	w.Octets = append(append(append(w.Octets, '"'), name...), '"', ':')
}

// Text writes a string.
func (w *Writer) Text(name, value string) {
	w.Key(name)
	w.Octets = AppendString(w.Octets, value)
}

// EscapedText is Text for a name that may need escapes.
func (w *Writer) EscapedText(name, value string) {
	w.comma()
	w.Octets = append(AppendString(w.Octets, name), ':')
	w.Octets = AppendString(w.Octets, value)
}

// TextIfAny leaves an empty string out.
func (w *Writer) TextIfAny(name, value string) {
	if value != "" {
		w.Text(name, value)
	}
}

// Bool writes true or false.
func (w *Writer) Bool(name string, value bool) {
	w.Key(name)
	w.Octets = strconv.AppendBool(w.Octets, value)
}

// Flag leaves false out.
func (w *Writer) Flag(name string, value bool) {
	if value {
		w.Bool(name, value)
	}
}

// Int writes a whole number.
func (w *Writer) Int(name string, value int64) {
	w.Key(name)
	w.Octets = strconv.AppendInt(w.Octets, value, 10)
}

// Time writes a time as RFC 3339 has it. A year of more than four digits is an
// error.
func (w *Writer) Time(name string, t time.Time) {
	w.Key(name)
	b, err := t.AppendText(append(w.Octets, '"'))
	if err != nil {
		w.fail(err)
		return
	}
	w.Octets = append(b, '"')
}

// Object writes an object, whose fields the function writes.
func (w *Writer) Object(name string, fields func()) {
	w.Key(name)
	w.Octets = append(w.Octets, '{')
	fields()
	w.Octets = append(w.Octets, '}')
}

// List writes a list of n objects. The function writes the fields of the i-th.
func (w *Writer) List(name string, n int, fields func(i int)) {
	w.Key(name)
	w.Octets = append(w.Octets, '[')
	for i := range n {
		if i > 0 {
			w.Octets = append(w.Octets, ',')
		}
		w.Octets = append(w.Octets, '{')
		fields(i)
		w.Octets = append(w.Octets, '}')
	}
	w.Octets = append(w.Octets, ']')
}

// Raw writes a value that is valid JSON already.
func (w *Writer) Raw(name string, value []byte) {
	w.Key(name)
	w.Octets = AppendRaw(w.Octets, value)
}

// Any leaves a value to encoding/json.
func (w *Writer) Any(name string, value any) {
	w.Key(name)
	text, err := json.Marshal(value)
	if err != nil {
		w.fail(err)
	}
	w.Octets = append(w.Octets, text...)
}

func (w *Writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}
