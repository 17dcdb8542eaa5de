package configs

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// otherVariables are those of the program that are no keys.
var otherVariables = []string{
	"TLSRELAY_ADMIN_TOKEN_FILE", "TLSRELAY_ADMIN_URL", "TLSRELAY_BOOTSTRAP_KEY", "TLSRELAY_BOOTSTRAP_KEY_FILE",
}

// refusedVariables are faults already, unless they are empty.
var refusedVariables = []string{"TLSRELAY_STORE", "TLSRELAY_STORE_FILE"}

// injected are variables that Kubernetes and Docker make for a service that is
// called tlsrelay, or tlsrelay-something: nobody wrote them.
var (
	injected     = regexp.MustCompile(`_SERVICE_(HOST|PORT|PORT_\w+)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`)
	injectedPort = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

// unknown warns of variables that set nothing, for a misspelt one passes for one
// that is set. names are the variables of all keys, false beside those that cannot
// come from the environment.
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

// nearest finds the name that is made of this one by the fewest letters put in and
// taken out. To leave a word out is the easier mistake, so what has to be taken out
// counts twice: TLSRELAY_RESOLVER is meant for TLSRELAY_DELIVERY_RESOLVER.
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
