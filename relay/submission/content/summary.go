package content

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"tlsrelay/events"
)

// Summary is what the rest of the relay needs to know of content.
type Summary struct {
	// MessageID is what events call the message by, in angle brackets.
	MessageID  string
	EightBit   bool              // there are octets above 127
	Category   json.RawMessage   // of X-SMTPAPI: a string or an array of strings; nil if absent
	UniqueArgs map[string]string // of X-SMTPAPI
}

// maxMessageID is the length of a line without its end (RFC 5322 §2.1.1).
// Every event of every recipient repeats the id.
const maxMessageID = 998

// smtpID is the id by which events call the message: what it says, in angle
// brackets whether it has them or not, or made where it says nothing fit to
// be repeated.
func smtpID(said, made string) string {
	switch {
	case said == "" || len(said) > maxMessageID || !utf8.ValidString(said) || strings.ContainsFunc(said, events.Hidden):
		return made
	case said[0] == '<' && said[len(said)-1] == '>':
		return said
	}
	return "<" + said + ">"
}

// maxRepeated bounds what the events of a message repeat for every recipient, and
// for every webhook besides: all of that is stored at once.
const maxRepeated = 16 << 20

// repeatable reports whether what the events of n recipients repeat stays within
// maxRepeated. On the wire one octet may become six.
func (s *Summary) repeatable(n int) bool {
	given := len(s.Category) + len(s.MessageID)
	for name, value := range s.UniqueArgs {
		given += len(name) + len(value)
	}
	if 6*given*n <= maxRepeated {
		return true
	}
	encoded, err := json.Marshal([]any{s.Category, s.UniqueArgs, s.MessageID})
	return err == nil && len(encoded)*n <= maxRepeated
}
