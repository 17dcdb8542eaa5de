package content

import (
	"encoding/json"
	"strings"
	"testing"
)

// What every recipient's events repeat is bounded by how often that is.
func TestRepeatable(t *testing.T) {
	for _, c := range []struct {
		category string
		rcpts    int
		want     bool
	}{
		{`"newsletter"`, 1000, true},
		{`"` + strings.Repeat("a", 9990) + `"`, 1000, true},
		{`"` + strings.Repeat("<", 9990) + `"`, 1, true},
		{`"` + strings.Repeat("<", 9990) + `"`, 1000, false},
	} {
		s := Summary{Category: json.RawMessage(c.category)}
		if got := s.repeatable(c.rcpts); got != c.want {
			t.Errorf("%.20s for %d: %v", c.category, c.rcpts, got)
		}
	}
}
