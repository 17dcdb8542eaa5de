package rest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// Reply answers an operator, who may read it with curl.
func Reply(w http.ResponseWriter, status int, v any) {
	write(w, status, "application/json", indented(v))
}

// Refuse tells an operator why not.
func Refuse(w http.ResponseWriter, status int, text string) { Reply(w, status, oneText{text}) }

func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body) // a client that has gone away is nobody to tell
}

// encodeAt writes a value in the dialect of a path.
func encodeAt(path string, v any) []byte {
	if strings.HasPrefix(path, OperatorPrefix) {
		return indented(v)
	}
	return encode(v)
}

// encode writes JSON without a line end: clients compare texts.
func encode(v any) []byte { return bytes.TrimSuffix(encoded(v, ""), []byte("\n")) }

func indented(v any) []byte { return encoded(v, "  ") }

// encoded writes JSON without the escapes for HTML.
func encoded(v any, indent string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		panic(err) // every answer is made of types of ours that encode
	}
	return b.Bytes()
}
