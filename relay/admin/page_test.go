package admin

import (
	"strings"
	"testing"
	"time"

	"tlsrelay/relay"
)

func TestPageSaysWhatItLeavesOut(t *testing.T) {
	for more, want := range map[int]string{0: "", 74_900: "and 74900 more destinations; <code>tlsrelay queue list --after b.test</code>"} {
		var b strings.Builder
		rows := []relay.QueueRow{{Destination: "a.test"}, {Destination: "b.test"}}
		if err := pageTemplate.Execute(&b, pageView{Queue: rows, More: more, Now: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if got := b.String(); !strings.Contains(got, want) || more == 0 && strings.Contains(got, "more destinations") {
			t.Errorf("%d more:\n%s", more, got)
		}
	}
}
