// Package api is all HTTP calls in one table: the public API, which is SendGrid's as
// far as a relay needs it (/v3) and our own beside it (/relay/v1), and the operator's
// calls behind the command line (/admin/v1), on a listener of their own. CONTRACT.md
// says what clients may rely on, and why; openapi.json has the shapes.
//
// A request comes in by relay/web, one of the operator's also by relay/admin. Its way:
//
//	api.go       New: options, what the calls ask (Deps), the two surfaces
//	routes.go    every call on one screen: scope and success code, or parameters
//	rest         path -> route; the body, its fields, faults, the answer
//	caller.go    who calls, on whose behalf, and may they; relay/web gives
//	             places to connections by it
//	bounds.go    what an account can make grow, and what bounds it
//
// and then a resource: in this package an account with its settings (enforced_tls.go,
// settings.go), rules (domains.go), keys (keys.go, scopes.go) and subusers
// (subusers.go), as the operator sees them (accounts.go), and the check of a domain
// (check.go); in hooks its webhooks; in mail its blocks and messages, and the queue.
//
// Checks come in this order: unknown path, method, key, limit, scope, size, body,
// unknown id. Nothing is stored unless the whole request is valid.
package api
