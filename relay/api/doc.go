// Package api is the public API: SendGrid's, as far as a relay needs it (/v3), and
// our own beside it (/relay/v1). CONTRACT.md says what clients may rely on, and why;
// openapi.json has the shapes.
//
// The way of one request:
//
//	api.go       New: options, what the handlers ask (Deps), the order of checks
//	routes.go    every route on one screen, with its scope and success code
//	serve.go     request id, CORS, the checks in order, panics, metrics
//	router.go    path, cleaned -> resource -> route
//	caller.go    who calls, on whose behalf, and may they; relay/web gives
//	             places to connections by it
//	limit.go     how many requests a key and its account have left (429)
//	bounds.go    what an account can make grow, and what holds it
//	slots.go     the slots of calls that wait for hosts of the caller's choosing
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
// Checks come in this order: unknown path, method, key, limit, scope, size, body,
// unknown id. Nothing is stored unless the whole request is valid.
package api
