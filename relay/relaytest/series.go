package relaytest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// NoSeriesBorn wants that every series which g has when the test ends is there
// now: one that is born when it first counts has no increase then, and an alert on
// it misses the first of what it waits for. Metrics whose names begin with one of
// open are no closed set.
func NoSeriesBorn(t TB, g prometheus.Gatherer, open ...string) {
	t.Helper()
	before := seriesOf(t, g, open)
	t.Cleanup(func() {
		t.Helper()
		for one := range seriesOf(t, g, open) {
			if !before[one] {
				t.Fatal("a series was born during the test: " + one)
			}
		}
	})
}

func seriesOf(t TB, g prometheus.Gatherer, open []string) map[string]bool {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]bool)
	for _, f := range families {
		if slices.ContainsFunc(open, func(prefix string) bool { return strings.HasPrefix(f.GetName(), prefix) }) {
			continue
		}
		for _, m := range f.GetMetric() {
			one := f.GetName()
			for _, l := range m.GetLabel() {
				one += fmt.Sprintf(" %s=%q", l.GetName(), l.GetValue())
			}
			all[one] = true
		}
	}
	return all
}
