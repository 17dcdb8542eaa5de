// Package admin is the operator's listener: metrics, health, profiles, a web
// page, and the JSON calls behind the command line (/admin/v1). It is meant to
// stay private, and defends itself all the same (guard.go).
//
//	admin.go      New: all routes on one screen
//	health.go     is it alive, and does it take mail
//	guard.go      who may call: token, Host, Origin, content type
//	accounts.go   accounts, their settings and keys
//	queue.go      the operator's hands on the queue
//	blocks.go     the block lists
//	check.go      what delivery to a domain would come to
//	page.go       the web page
package admin
