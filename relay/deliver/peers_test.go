package deliver

import (
	"testing"
	"time"
)

// TestPeersAreBounded: whoever has many addresses cannot make the relay remember
// more of them than it likes.
func TestPeersAreBounded(t *testing.T) {
	var ps peers
	for i := range maxPeers + 1000 {
		ps.withoutChunks(nthAddress(i))
	}
	if len(ps.known) > maxPeers {
		t.Errorf("%d addresses", len(ps.known))
	}
	if p := ps.get(nthAddress(maxPeers + 999)); !time.Now().Before(p.noChunks) {
		t.Error("the last one is not known")
	}
	var p peer
	for i := range 100 {
		p.learn(uint64(i+1), nil, time.Now())
	}
	if len(p.answers) > maxAnswers || !p.knows(100) {
		t.Errorf("%v", p.answers)
	}
}
