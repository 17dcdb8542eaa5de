package queue

// turns are subs that wait for something that one has at a time. Accounts take
// turns, and so do the subs of each: who has a thousand waits no shorter for it,
// and lets nobody wait for longer.
type turns struct {
	accounts fifo[*row]
	rows     map[*tenant]*row
	n        int
}

// row is what one account has waiting.
type row struct {
	tenant *tenant
	subs   fifo[*sub]
}

func (t *turns) push(b *sub) {
	r := t.rows[b.tenant]
	if r == nil {
		if t.rows == nil {
			t.rows = make(map[*tenant]*row)
		}
		r = &row{tenant: b.tenant}
		t.rows[b.tenant] = r
		t.accounts.push(r)
	}
	r.subs.push(b)
	t.n++
}

// pop takes the sub whose turn it is, nil when none waits.
func (t *turns) pop() *sub {
	if t.n == 0 {
		return nil
	}
	r := t.accounts.pop()
	b := r.subs.pop()
	t.n--
	if r.subs.len() > 0 {
		t.accounts.push(r)
	} else {
		delete(t.rows, r.tenant)
	}
	return b
}

// claimTurns are the subs that are to claim, by the rank of their lanes.
type claimTurns struct {
	of   [ranks]turns
	last rank // whose turn it was
}

// next takes the sub whose turn it is; the ranks take turns as well. permitted is
// asked once per rank.
func (c *claimTurns) next(permitted func(rank) bool) (*sub, rank) {
	for i := range ranks {
		r := (c.last + 1 + i) % ranks
		if c.of[r].n == 0 || !permitted(r) {
			continue
		}
		c.last = r
		return c.of[r].pop(), r
	}
	return nil, 0
}
