// Package resolve says where mail for a destination goes: domain -> hosts ->
// addresses, with what is known of each host before it is dialled. It asks one
// recursive resolver, and tells "no such domain", "no mail here" and "could not find
// out" apart, which net.Resolver does not.
//
//	resolver.go  Options, New, Run; Route: from the cache, or ...
//	compose.go   ... MX, implicit MX, literals and configured routes -> route.go's Route
//	address.go   ... where one host may be dialled
//	order.go     preference, shuffle among equals, bounds (pure)
//	failure.go   what each kind of trouble is called in replies and events (pure)
//	lookup.go    one question: cache (relay/cache), one flight at a time, aliases
//	answer.go    a DNS message -> answer (pure): the only reader of what strangers send
//	client.go    UDP, repeated, TCP when truncated; with answer.go all that knows miekg/dns
//	network.go   which addresses are ours, private, or out of reach
//	dnssec.go    whether the resolver's AD bit is to be believed
//	metrics.go   counters
package resolve
