package fair

// Rank is a kind of destination by what it may have of the slots that all share.
type Rank uint8

// The ranks. An unproven destination is New while it has nothing under way, and
// Eager when it asks for more than that.
const (
	RankNew Rank = iota
	RankEager
	RankHealthy
	RankSlow
	ranks
)

// RankOf gives the rank of a destination of the given standing that has so much
// under way.
func RankOf(s Standing, underway int) Rank {
	switch {
	case s == Healthy:
		return RankHealthy
	case s == Slow:
		return RankSlow
	case underway == 0:
		return RankNew
	}
	return RankEager
}

// Slots counts taken slots by the standing of the destinations that have them.
type Slots struct{ Unproven, Healthy, Slow int }

// Of is the count for a standing.
func (taken *Slots) Of(s Standing) *int {
	switch s {
	case Healthy:
		return &taken.Healthy
	case Slow:
		return &taken.Slow
	}
	return &taken.Unproven
}

// Plus gives the sum.
func (taken Slots) Plus(more Slots) Slots {
	return Slots{taken.Unproven + more.Unproven, taken.Healthy + more.Healthy, taken.Slow + more.Slow}
}

// Total is how many slots are taken.
func (taken Slots) Total() int { return taken.Unproven + taken.Healthy + taken.Slow }

func (taken Slots) notHealthy() int { return taken.Unproven + taken.Slow }

// FreeFor reports whether one more of n slots is free for rank r. A slot that a
// tarpit has is gone for minutes, so a destination that is not known to be quick
// must leave room until it is known:
//
//	slow       not the last free tenth
//	eager      only while half of all are free
//	new        together with eager and slow ones, all but a tenth
//	healthy    all but a tenth, or no new one could show that it is healthy
//
// Half a tenth is reserved for slow ones, or none would recover beside
// destinations that are busy all the time; and as much for new ones, or none
// could become healthy when all healthy ones have become slow at once.
func (taken Slots) FreeFor(r Rank, n int) bool {
	free, tenth := n-taken.Total(), tenthOf(n)
	if free <= 0 {
		return false
	}
	switch r {
	case RankHealthy:
		return taken.Healthy < n-tenth
	case RankNew:
		return taken.notHealthy() < n-tenth || taken.Unproven < tenth/2
	case RankEager:
		return free > n/2
	}
	return free > tenth || taken.Slow < tenth/2
}

func tenthOf(n int) int {
	if n >= 4 {
		return max(1, n/10)
	}
	return n / 10
}

// UnderQuota reports whether an account that has own, of all deliveries in memory,
// may have one more there for a destination of rank r. A delivery in memory begins
// as soon as FreeFor allows it, so this is what shares the n slots among accounts:
//
//	healthy    no quota
//	new        as much as would still be free, so that the next account finds as
//	           much as the ones before it have; an account alone, eight times that
//	eager      half of that, so that one destination does not take it all
//	slow       as new ones and, of all accounts together, a quarter of all slots
//
// A few are reserved for every account, whatever the others have.
func (own Slots) UnderQuota(all Slots, r Rank, n int, alone bool) bool {
	few, free, mine := max(1, n/32), n-tenthOf(n)-all.notHealthy(), own.notHealthy()
	if alone {
		free *= 8
	}
	switch r {
	case RankHealthy:
		return true
	case RankEager:
		return mine < max(few, free/2)
	case RankSlow:
		return mine < max(few, free) && (own.Slow < few || all.Slow < max(1, n/4))
	}
	return mine < max(few, free)
}

// Batch is how many deliveries at a time UnderQuota allows for a destination that
// is not healthy, if it allows one.
func (own Slots) Batch(all Slots, n int) int {
	return max(1, (n-tenthOf(n)-all.notHealthy()-2*own.notHealthy())/3)
}
