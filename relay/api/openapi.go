package api

import (
	_ "embed"
	"encoding/json"

	"tlsrelay/relay/api/rest"
)

// document describes /relay/v1; a test holds it against the routes.
//
//go:embed openapi.json
var document string

func (s *server) openAPI(*rest.Request) (any, error) { return json.RawMessage(document), nil }
