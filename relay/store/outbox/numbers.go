package outbox

// The outbox has one row for every event and every endpoint that wants it,
// written with the state that the event tells of. Rows are handed out in the
// order of their sequence numbers, and who reads them goes on above the last
// one. So a row must never come to light below one that has been handed out:
// numbers are given out before the batch is committed, and Rows stops below
// the lowest number whose batch is still on its way.

// numbers gives out sequence numbers and knows which are on their way. Outbox.mu guards
// it.
type numbers struct {
	next    uint64 // the next number
	open    []*ticket
	durable uint64 // all rows below are on stable storage
}

// ticket is the numbers of one batch, from first on.
type ticket struct {
	first     uint64
	endpoints []string // with rows in the batch
	done      bool
}

// endpoint notes that the batch has a row for an endpoint.
func (t *ticket) endpoint(id string) {
	if len(t.endpoints) == 0 || t.endpoints[len(t.endpoints)-1] != id {
		t.endpoints = append(t.endpoints, id)
	}
}

// begin gives n numbers.
func (k *numbers) begin(n int) *ticket {
	t := &ticket{first: k.next}
	k.next += uint64(n)
	k.open = append(k.open, t)
	return t
}

// end says that the batch can be seen, or never will be, and gives the endpoints whose
// rows can be handed out by that: its own and those of later batches that it held up,
// none while an earlier one is on its way.
func (k *numbers) end(t *ticket) (endpoints []string) {
	t.done = true
	for len(k.open) > 0 && k.open[0].done {
		endpoints = append(endpoints, k.open[0].endpoints...)
		k.open = k.open[1:]
	}
	return endpoints
}

// limit is the number below which every row can be seen that ever will be.
func (k *numbers) limit() uint64 {
	if len(k.open) > 0 {
		return k.open[0].first
	}
	return k.next
}

// resume makes sure that numbers go on above those in the database.
func (k *numbers) resume(next uint64) {
	k.next = max(k.next, next)
	k.durable = 0
}
