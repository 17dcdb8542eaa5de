package content

import (
	"encoding/json"
	"maps"
	"mime"
	"net/mail"
	"strconv"
	"strings"

	"tlsrelay/relay"
)

const (
	// maxCategories and maxUniqueArgs are SendGrid's bounds. The second is in
	// octets, of all names and values together.
	maxCategories = 10
	maxUniqueArgs = 10_000
	// maxCategory is in octets, of all categories together: every event repeats
	// them.
	maxCategory = 10_000
)

// readSMTPAPI reads the unfolded value of an X-SMTPAPI header. The relay cannot do
// what some keys ask for: change who gets what, or when. It refuses them, because
// a sender would rely on a key that is ignored. It ignores them if they ask for
// nothing, or for what happens anyway.
func (s *Summary) readSMTPAPI(value string, rcpts []relay.Recipient) error {
	object, err := smtpAPIObject(value)
	if err != nil {
		return err
	}
	for _, key := range []string{"to", "sub", "section", "send_at", "send_each_at"} {
		raw := object[key]
		if !absent(raw) && isOn(raw) && !(key == "to" && areAll(raw, rcpts)) {
			return smtpAPIFault(": " + key + " is not supported")
		}
	}
	if err := checkFilters(object["filters"]); err != nil {
		return err
	}
	if s.Category, err = parseCategory(object["category"]); err != nil {
		return err
	}
	s.UniqueArgs, err = parseUniqueArgs(object["unique_args"])
	return err
}

// smtpAPIObject decodes the JSON object. Some clients write it as encoded words
// (RFC 2047), even if it is ASCII. A value that is JSON is not decoded, because its
// strings may look like encoded words. An empty value of another type counts as an
// empty object: PHP writes its empty array as [].
func smtpAPIObject(value string) (map[string]json.RawMessage, error) {
	if !json.Valid([]byte(value)) {
		decoded, err := new(mime.WordDecoder).DecodeHeader(value)
		if err != nil {
			return nil, errSMTPAPI
		}
		value = decoded
	}
	value = strings.Trim(value, " \t")
	if absent(json.RawMessage(value)) {
		return nil, nil
	}
	var object map[string]json.RawMessage
	if !strings.HasPrefix(value, "{") || json.Unmarshal([]byte(value), &object) != nil {
		return nil, errSMTPAPI
	}
	return object, nil
}

// absent reports whether a value says nothing: missing, null, "", [] or {}.
func absent(raw json.RawMessage) bool {
	if len(raw) > 0 && (raw[0] == '[' || raw[0] == '{') {
		inner := strings.TrimLeft(string(raw[1:]), " \t\r\n")
		return inner == "]" || inner == "}"
	}
	return len(raw) == 0 || string(raw) == "null" || string(raw) == `""`
}

// isOn reports whether a switch is on: its value is not false or zero, nor a word
// for that.
func isOn(raw json.RawMessage) bool {
	s, scalar := text(raw)
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "", "false", "no", "off":
		return !scalar
	}
	n, err := strconv.ParseFloat(s, 64)
	return err != nil || n != 0
}

// text returns a string as it is, and a number or a boolean as it is spelled. ok is
// false for other types.
func text(raw json.RawMessage) (s string, ok bool) {
	switch {
	case absent(raw):
		return "", true
	case raw[0] == '[' || raw[0] == '{':
		return "", false
	case raw[0] == '"':
		err := json.Unmarshal(raw, &s)
		return s, err == nil
	}
	return string(raw), true
}

// areAll reports whether a value names all recipients of the envelope and nobody
// else, or nobody at all.
func areAll(raw json.RawMessage, rcpts []relay.Recipient) bool {
	var named []string
	if json.Unmarshal(raw, &named) != nil {
		one, ok := text(raw)
		if !ok {
			return false
		}
		named = []string{one}
	}
	asked, given := make(map[string]bool), make(map[string]bool)
	for _, s := range named {
		if strings.TrimSpace(s) == "" {
			continue
		}
		a, err := relay.ParseAddress(strings.TrimSpace(s), true)
		if full, merr := mail.ParseAddress(s); err != nil && merr == nil { // with a name
			a, err = relay.ParseAddress(full.Address, true)
		}
		if err != nil {
			return false
		}
		s, _ := a.ASCII()
		asked[s] = true
	}
	for _, r := range rcpts {
		s, _ := r.Address.ASCII()
		given[s] = true
	}
	return len(asked) == 0 || maps.Equal(asked, given)
}

// changing are the filters that add recipients or change content. The other filters
// only watch the message.
var changing = []string{"bcc", "footer", "template", "templates"}

func checkFilters(raw json.RawMessage) error {
	var filters map[string]json.RawMessage
	if absent(raw) {
		return nil
	}
	if json.Unmarshal(raw, &filters) != nil {
		return smtpAPIFault(": " + "filters is not an object")
	}
	for _, name := range changing {
		for key, filter := range filters {
			if strings.EqualFold(key, name) && isEnabled(filter) {
				return smtpAPIFault(": " + "filter " + name + " is not supported")
			}
		}
	}
	return nil
}

// isEnabled reads {"settings": {"enable": 1, ...}}. A filter that has settings and
// no "enable" is enabled.
func isEnabled(raw json.RawMessage) bool {
	if absent(raw) {
		return false
	}
	var filter struct{ Enable, Settings json.RawMessage }
	if json.Unmarshal(raw, &filter) != nil {
		return isOn(raw)
	}
	var settings struct{ Enable json.RawMessage }
	_ = json.Unmarshal(filter.Settings, &settings)
	for _, enable := range []json.RawMessage{settings.Enable, filter.Enable} {
		if len(enable) > 0 {
			return isOn(enable)
		}
	}
	return !absent(filter.Settings)
}

const noCategory = "category is neither a string nor an array of strings"

func parseCategory(raw json.RawMessage) (json.RawMessage, error) {
	if len(raw) > maxCategory {
		return nil, smtpAPIFault(": " + "category has more than 10000 bytes")
	}
	var many []json.RawMessage
	if json.Unmarshal(raw, &many) != nil {
		return category(raw)
	}
	var kept json.RawMessage
	n := 0
	for _, raw := range many {
		one, err := category(raw)
		if err != nil {
			return nil, err
		}
		if one != nil {
			kept = append(append(kept, ','), one...)
			n++
		}
	}
	switch {
	case n == 0:
		return nil, nil
	case n > maxCategories:
		return nil, smtpAPIFault(": " + "more than 10 categories")
	}
	kept[0] = '['
	return append(kept, ']'), nil
}

// category returns one category as a JSON string, nil if it has no name.
func category(raw json.RawMessage) (json.RawMessage, error) {
	switch _, ok := text(raw); {
	case !ok:
		return nil, smtpAPIFault(": " + noCategory)
	case absent(raw):
		return nil, nil
	case raw[0] == '"':
		return raw, nil
	}
	return json.RawMessage(`"` + string(raw) + `"`), nil
}

// parseUniqueArgs reads an object of strings.
func parseUniqueArgs(raw json.RawMessage) (map[string]string, error) {
	if absent(raw) {
		return nil, nil
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) != nil {
		return nil, smtpAPIFault(": " + "unique_args is not an object")
	}
	args := make(map[string]string, len(object))
	size := 0
	for name, v := range object {
		s, ok := text(v)
		if !ok {
			return nil, smtpAPIFault(": " + "a value in unique_args is not a string")
		}
		args[name] = s
		size += len(name) + len(s)
	}
	if size > maxUniqueArgs {
		return nil, smtpAPIFault(": " + "unique_args has more than 10000 bytes")
	}
	return args, nil
}
