package events

import "testing"

// A prefix is a prefix in any case of letters, and % stands for anything.
func TestBlockFilterFinds(t *testing.T) {
	for _, c := range []struct {
		prefix, email string
		want          bool
	}{
		{"", "a@x.example", true},
		{"A@", "a@x.example", true},
		{"x", "a@x.example", false},
		{"%", "a@x.example", true},
		{"a%", "a@x.example", true},
		{"%x.EXAMPLE", "a@X.example", true},
		{"%y.example", "a@x.example", false},
		{"a%x%e", "a@x.example", true},
		{"a%x%e%x%e%e", "a@x.example", false},
		{"%%@%", "a@x.example", true},
		{"50%@", "50%@x.example", true},
		{"é", "É@x.example", true},
	} {
		if got := (BlockFilter{Prefix: c.prefix}).Finds(c.email); got != c.want {
			t.Errorf("%q finds %q: %v", c.prefix, c.email, got)
		}
	}
}
