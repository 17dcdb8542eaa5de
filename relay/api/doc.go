// Package api is the public API: SendGrid's, as far as a relay needs it
// (/v3, contract §1 to §6), and our own beside it (/relay/v1, interface §5).
//
// The way of one request:
//
//	api.go       New: options, what the handlers ask (Deps), the order of checks
//	routes.go    every route on one screen, with its scope and success code
//	serve.go     request id, CORS, the checks in order, panics, metrics
//	router.go    path, cleaned -> resource -> route
//	caller.go    who calls, on whose behalf, and may they (contract §2)
//	limit.go     how many requests a key has left (429)
//	request.go   what a handler gets; the body, bounded and decoded
//	fields.go    one JSON object read field by field, strictly, all faults at once
//	fault.go     errors, in SendGrid's envelope or as problem details (RFC 9457)
//	audit.go     who changed what
//
// and then one file per resource: enforced_tls.go, scopes.go, keys.go,
// subusers.go, webhooks.go (webhook_form.go, webhook_signing.go), blocks.go
// (links.go), and for /relay/v1 check.go, settings.go, messages.go, domains.go
// and openapi.go.
//
// Checks come in the order of contract §2.3: unknown path, method, key, scope,
// size, body, unknown id. Nothing is stored unless the whole request is valid.
package api
