package resolve

import (
	"cmp"
	"math/rand/v2"
	"slices"
)

// Bounds on one route. What is beyond them is noted as untried and counts as
// unreachable: that no host complies can be said only of hosts that were asked.
const (
	maxHosts     = 10
	maxAddresses = 20
	maxNoted     = 20
)

// exchangers puts an MX set in order: preference, and shuffled among equals
// (RFC 5321 §5.1). Null entries beside others mean nothing (RFC 7505 §3), and
// a host named twice keeps its better place. null is true when there are only
// null entries.
func exchangers(set []mx) (ordered []mx, null bool) {
	ordered = slices.DeleteFunc(slices.Clone(set), func(m mx) bool { return m.host == "" })
	if len(ordered) == 0 {
		return nil, true
	}
	rand.Shuffle(len(ordered), func(i, j int) { ordered[i], ordered[j] = ordered[j], ordered[i] })
	slices.SortStableFunc(ordered, func(a, b mx) int { return cmp.Compare(a.preference, b.preference) })
	seen := make(map[string]bool, len(ordered))
	return slices.DeleteFunc(ordered, func(m mx) bool {
		again := seen[m.host]
		seen[m.host] = true
		return again
	}), false
}

// reshuffle gives hosts anew in an order that respects preference: shuffled
// among equals, those that are not well behind the others. A route without
// equals is given as it is.
func reshuffle(hosts []Host, unwell func(host string) bool) []Host {
	if !hasEquals(hosts) {
		return hosts
	}
	mixed := slices.Clone(hosts)
	for from := 0; from < len(mixed); {
		to := from + 1
		for to < len(mixed) && mixed[to].Preference == mixed[from].Preference {
			to++
		}
		group := mixed[from:to]
		rand.Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
		if unwell != nil {
			slices.SortStableFunc(group, func(a, b Host) int { return rank(unwell(a.Name)) - rank(unwell(b.Name)) })
		}
		from = to
	}
	return mixed
}

func rank(unwell bool) int {
	if unwell {
		return 1
	}
	return 0
}

func hasEquals(hosts []Host) bool {
	for i := 1; i < len(hosts); i++ {
		if hosts[i].Preference == hosts[i-1].Preference {
			return true
		}
	}
	return false
}
