// Package admin is the operator's listener: metrics, health, profiles, a web
// page, and before all of them the check that it is the operator who asks. The calls
// behind the command line (/admin/v1) are in relay/api, in one table with the public
// ones. The listener is meant to stay private, and defends itself all the same.
//
//	admin.go    New: all paths on one screen
//	caller.go   who may ask: token, Host, Origin, content type
//	health.go   is it alive, and does it take mail
//	page.go     the web page
package admin
