package outbox

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Counts is what waits in the outbox, by endpoint and by account, in octets of
// keys and values before they are compressed. It is kept in
// memory; what was there at the opening is added in the background. It has no lock of its
// own.
type Counts struct {
	of       map[string]*box // by endpoint
	accounts map[string]int64
	total    box
	bound    int64
	full     map[string]struct{} // accounts past the bound
}

// box is what waits for one endpoint.
type box struct {
	account string
	rows    int
	octets  int64
}

// Reset forgets all, for another instance of the database.
func (b *Counts) Reset(bound int64) {
	b.of, b.accounts, b.full = make(map[string]*box), make(map[string]int64), make(map[string]struct{})
	b.total, b.bound = box{}, bound
}

// Add takes in that an endpoint has more rows, or less, and reports whether its
// account has too many by that.
func (b *Counts) Add(account, endpoint string, rows int, octets int64) (full bool) {
	at := b.of[endpoint]
	if at == nil {
		at = &box{account: account}
		b.of[endpoint] = at
	}
	b.change(endpoint, at, rows, octets)
	if octets > 0 && b.bound > 0 && b.accounts[at.account] > b.bound {
		b.full[at.account] = struct{}{}
		return true
	}
	return false
}

func (b *Counts) change(endpoint string, at *box, rows int, octets int64) {
	at.rows += rows
	at.octets += octets
	b.total.rows += rows
	b.total.octets += octets
	if b.accounts[at.account] += octets; b.accounts[at.account] == 0 {
		delete(b.accounts, at.account)
	}
	if at.rows == 0 && at.octets == 0 {
		delete(b.of, endpoint)
	}
}

// drop forgets an endpoint that is gone.
func (b *Counts) drop(endpoint string) {
	if at := b.of[endpoint]; at != nil {
		b.change(endpoint, at, -at.rows, -at.octets)
	}
}

// excess is how many octets of an account are to be given up, so that there is room
// again for as long as it takes.
func (b *Counts) excess(account string) int64 {
	return b.accounts[account] - (b.bound - b.bound/shedSlack)
}

// takeFull gives the accounts that came past the bound since it was last called.
func (b *Counts) takeFull() (accounts []string) {
	for account := range b.full {
		accounts = append(accounts, account)
	}
	clear(b.full)
	return accounts
}

// String lists what waits, and where accounts do not add up.
func (b *Counts) String() string {
	var s strings.Builder
	accounts, total := maps.Clone(b.accounts), b.total
	for _, id := range slices.Sorted(maps.Keys(b.of)) {
		at := b.of[id]
		fmt.Fprintf(&s, "%s of %q %d in %d; ", id, at.account, at.octets, at.rows)
		accounts[at.account] -= at.octets
		total.rows, total.octets = total.rows-at.rows, total.octets-at.octets
	}
	for account, n := range accounts {
		if n != 0 && account != "" {
			fmt.Fprintf(&s, "account %s is off by %d; ", account, n)
		}
	}
	if total.rows != 0 || total.octets != 0 {
		fmt.Fprintf(&s, "the total is off by %d in %d", total.octets, total.rows)
	}
	return s.String()
}
