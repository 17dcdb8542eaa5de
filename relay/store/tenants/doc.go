// Package tenants keeps what an account has besides its mail, and what the API changes
// of it: the account itself, its API keys, webhook endpoints, rules for recipient domains
// and its block list.
//
//	tenants.go    Engine, what is needed of a database; change, the way of every write
//	memory.go     the copy in memory that every message asks; Load reads it
//	accounts.go   accounts
//	keys.go       API keys
//	endpoints.go  webhook endpoints, and which of them want an event
//	overrides.go  rules for recipient domains
//	blocks.go     the block list, in the database alone
//
// A write is durable before the memory changes, and rules that count (so many keys of an
// account, no name twice) are checked under the lock that all writers hold. Rows of the
// block list come from transitions, too, in their batch: see PutBlocks.
//
// The keys are those of package layout. Any database that keeps keys in order can be the
// Engine.
package tenants
