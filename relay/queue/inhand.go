package queue

import (
	"sync"

	"tlsrelay/relay"
)

// inHand are the deliveries that this process works on: those that it has claimed,
// or promised to Accept, and has neither committed nor given back. A lease can end
// before that, because the clock stood still or the store was away. A claim passes
// over them all the same (relay.Store), so that no delivery is attempted twice at a
// time and no outcome is lost to a second claim. The loop adds to them; claims,
// which run beside it, ask.
type inHand struct {
	mu   sync.Mutex
	keys map[relay.DeliveryKey]struct{}
}

func (h *inHand) add(k relay.DeliveryKey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.keys == nil {
		h.keys = make(map[relay.DeliveryKey]struct{})
	}
	h.keys[k] = struct{}{}
}

// remove notes that k is no longer worked on. The caller has come to the end of k
// in the store first: otherwise a claim could fall in between.
func (h *inHand) remove(k relay.DeliveryKey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.keys, k)
}

func (h *inHand) has(k relay.DeliveryKey) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.keys[k]
	return ok
}
