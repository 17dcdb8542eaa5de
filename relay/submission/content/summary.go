package content

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"tlsrelay/events"
)

// Summary is what the rest of the relay learns of the content.
type Summary struct {
	// MessageID is how events name the message, in angle brackets.
	MessageID  string
	EightBit   bool              // it has octets above 127
	Category   json.RawMessage   // of X-SMTPAPI: a string or an array of strings; nil if absent
	UniqueArgs map[string]string // of X-SMTPAPI
}

// maxMessageID is the longest Message-ID that events repeat, in octets: a line
// without its line end (RFC 5322 §2.1.1).
const maxMessageID = 998

// smtpID is how events name the message. It is what the message says, in angle
// brackets, or made if the message says nothing that an event can repeat.
func smtpID(said, made string) string {
	switch {
	case said == "" || len(said) > maxMessageID || !utf8.ValidString(said) || strings.ContainsFunc(said, events.Hidden):
		return made
	case said[0] == '<' && said[len(said)-1] == '>':
		return said
	}
	return "<" + said + ">"
}

// maxRepeated is how many octets the events of a message may repeat, over all
// recipients. All that is stored at once, and once more for every webhook.
const maxRepeated = 16 << 20

// repeatable reports whether the events of n recipients repeat no more than
// maxRepeated octets. In JSON one octet may become six.
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
