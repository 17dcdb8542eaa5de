package api

import (
	_ "embed"
	"encoding/json"
)

// document describes /relay/v1; a test holds it against the routes.
//
//go:embed openapi.json
var document string

func (s *server) openAPI(*request) (any, error) { return json.RawMessage(document), nil }
