package submission

import (
	"bytes"
	"encoding/json"
	"errors"
	"mime"
	"strings"
)

// Bounds of contract §7.
const (
	maxCategories = 10
	maxUniqueArgs = 10_000 // octets of all names and values together
	maxCategory   = 10_000 // octets of all categories together; every event repeats them
)

// smtpAPI is what the relay takes from an X-SMTPAPI header.
type smtpAPI struct {
	category   json.RawMessage // string or array of strings, nil if absent
	uniqueArgs map[string]string
}

// errSMTPAPI is what SendGrid calls a header that it cannot read.
//
//lint:ignore ST1005 the words are those of the reply
var errSMTPAPI = errors.New("Invalid SMTPAPI header")

func smtpAPIError(about string) error {
	return errors.New(errSMTPAPI.Error() + ": " + about)
}

// parseSMTPAPI reads the unfolded value of an X-SMTPAPI header. An error's
// text is fit for a reply. Keys that would change who gets what, or when, are
// refused and not ignored: the sender would believe in them.
func parseSMTPAPI(value string) (smtpAPI, error) {
	object, err := smtpAPIObject(value)
	if err != nil {
		return smtpAPI{}, err
	}
	for _, key := range []string{"to", "sub", "section", "send_at", "send_each_at"} {
		if _, ok := object[key]; ok {
			return smtpAPI{}, smtpAPIError(key + " is not supported")
		}
	}
	var api smtpAPI
	if api.category, err = parseCategory(object["category"]); err != nil {
		return smtpAPI{}, err
	}
	if api.uniqueArgs, err = parseUniqueArgs(object["unique_args"]); err != nil {
		return smtpAPI{}, err
	}
	return api, nil
}

// smtpAPIObject decodes the JSON object. Some clients write it in encoded
// words even where it is plain ASCII (RFC 2047); what is JSON as it stands is
// left alone, since its strings may look like such words.
func smtpAPIObject(value string) (map[string]json.RawMessage, error) {
	if !json.Valid([]byte(value)) {
		decoded, err := new(mime.WordDecoder).DecodeHeader(value)
		if err != nil {
			return nil, errSMTPAPI
		}
		value = decoded
	}
	var object map[string]json.RawMessage
	if !strings.HasPrefix(strings.TrimLeft(value, " \t"), "{") || json.Unmarshal([]byte(value), &object) != nil {
		return nil, errSMTPAPI
	}
	return object, nil
}

func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func parseCategory(raw json.RawMessage) (json.RawMessage, error) {
	if absent(raw) {
		return nil, nil
	}
	if len(raw) > maxCategory {
		return nil, smtpAPIError("category has more than 10000 bytes")
	}
	var one *string
	if json.Unmarshal(raw, &one) == nil && one != nil {
		return compact(raw), nil
	}
	var many []*string
	if json.Unmarshal(raw, &many) != nil {
		return nil, smtpAPIError("category is neither a string nor an array of strings")
	}
	if len(many) > maxCategories {
		return nil, smtpAPIError("more than 10 categories")
	}
	for _, s := range many {
		if s == nil {
			return nil, smtpAPIError("category is neither a string nor an array of strings")
		}
	}
	return compact(raw), nil
}

func compact(raw json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return raw
	}
	return b.Bytes()
}

// parseUniqueArgs reads an object of strings. Clients also give numbers and
// booleans, which are taken by their spelling.
func parseUniqueArgs(raw json.RawMessage) (map[string]string, error) {
	if absent(raw) {
		return nil, nil
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) != nil {
		return nil, smtpAPIError("unique_args is not an object")
	}
	args := make(map[string]string, len(object))
	size := 0
	for name, v := range object {
		var s string
		switch {
		case v[0] == '{' || v[0] == '[':
			return nil, smtpAPIError("a value in unique_args is not a string")
		case v[0] == '"':
			if json.Unmarshal(v, &s) != nil {
				return nil, errSMTPAPI
			}
		case string(v) != "null":
			s = string(v)
		}
		args[name] = s
		size += len(name) + len(s)
	}
	if size > maxUniqueArgs {
		return nil, smtpAPIError("unique_args has more than 10000 bytes")
	}
	return args, nil
}
