package configs

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// otherVariables are the variables of the program that set no key.
var otherVariables = []string{
	"TLSRELAY_ADMIN_TOKEN_FILE", "TLSRELAY_ADMIN_URL", "TLSRELAY_BOOTSTRAP_KEY", "TLSRELAY_BOOTSTRAP_KEY_FILE",
}

// refusedVariables are reported as faults unless they are empty.
var refusedVariables = []string{"TLSRELAY_STORE", "TLSRELAY_STORE_FILE"}

// injected are variables that nobody wrote: Kubernetes and Docker make them for a service
// called tlsrelay or tlsrelay-something.
var (
	injected     = regexp.MustCompile(`_SERVICE_(HOST|PORT|PORT_\w+)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`)
	injectedPort = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

// unknown warns of variables that set nothing, because a misspelt one looks as if it did.
// names has the variables of all keys, with false for keys that cannot come from the
// environment.
func (l *loader) unknown(vars map[string]string, names map[string]bool) {
	known := append(slices.Sorted(maps.Keys(names)), otherVariables...)
	for name, value := range vars {
		settable, isKey := names[name]
		switch {
		case settable, slices.Contains(otherVariables, name), slices.Contains(refusedVariables, name):
		case isKey:
			l.warnings = append(l.warnings, Fault{Key: name, Text: "sets nothing: this key holds names and values, and comes from the file alone"})
		case injected.MatchString(name), strings.HasSuffix(name, "_PORT") && injectedPort.MatchString(value):
		default:
			l.warnings = append(l.warnings, Fault{Key: name, Text: "sets nothing: there is no such key; " + nearest(name, known) + " is the nearest"})
		}
	}
}

// nearest finds the known name that needs the fewest letters added to this one or removed
// from it. A removed letter counts twice, because people rather leave out a word than add
// one: TLSRELAY_RESOLVER means TLSRELAY_DELIVERY_RESOLVER.
func nearest(name string, known []string) string {
	return slices.MinFunc(known, func(a, b string) int { return cmp.Compare(distance(name, a), distance(name, b)) })
}

func distance(a, b string) int {
	row := make([]int, len(b)+1) // from the beginning of a to each beginning of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] += 2
		for j := range len(b) {
			here := min(row[j]+1, row[j+1]+2)
			if a[i] == b[j] {
				here = before
			}
			before, row[j+1] = row[j+1], here
		}
	}
	return row[len(b)]
}
