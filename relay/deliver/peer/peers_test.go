package peer

import (
	"testing"
	"time"
)

// TestPeersAreBounded: whoever has many addresses cannot make the relay remember
// more of them than it likes.
func TestPeersAreBounded(t *testing.T) {
	var ps Memory
	for i := range maxPeers + 1000 {
		ps.WithoutChunks(nthAddress(i))
	}
	if n := ps.known().Len(); n > maxPeers {
		t.Errorf("%d addresses", n)
	}
	if p := ps.Get(nthAddress(maxPeers + 999)); !time.Now().Before(p.NoChunks) {
		t.Error("the last one is not known")
	}
	var p Traits
	for i := range 100 {
		p.Learn(uint64(i+1), nil, time.Now())
	}
	if len(p.Answers) > maxAnswers || !p.Knows(100) {
		t.Errorf("%v", p.Answers)
	}
}
