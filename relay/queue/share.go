package queue

// rank is a kind of lane by what it may have of the slots that all share.
type rank uint8

// A fresh lane is unknown and has nothing under way; an eager one is unknown
// and has.
const (
	fresh rank = iota
	eager
	proven
	laggard
	ranks
)

// rankOf places a lane of the given standing that has so much under way.
func rankOf(s Standing, underway int) rank {
	switch {
	case s == Proven:
		return proven
	case s == Laggard:
		return laggard
	case underway == 0:
		return fresh
	}
	return eager
}

// use counts taken slots by the standing of the lanes that have them.
type use struct{ unknown, proven, laggard int }

func (u *use) of(s Standing) *int {
	switch s {
	case Proven:
		return &u.proven
	case Laggard:
		return &u.laggard
	}
	return &u.unknown
}

func (u use) unproven() int { return u.unknown + u.laggard }

func (u use) total() int { return u.unknown + u.proven + u.laggard }

// permits reports whether a lane of rank r may take one more of n slots. A
// slot given to a tarpit is gone for minutes, so whoever is not known to be
// quick must leave room before it is known what he is:
//
//	laggards   not the last free tenth
//	eager      only while half of all are free
//	fresh      with eager lanes and laggards together, all but a tenth
//	proven     all but a tenth, lest nobody new can prove himself
//
// Half a tenth is safe to laggards, or none would recover beside lanes that
// are busy all the time; and to those not known yet, or none would prove
// himself beside proven ones that have become slow all at once.
func (u use) permits(r rank, n int) bool {
	free, tenth := n-u.total(), tenthOf(n)
	if free <= 0 {
		return false
	}
	switch r {
	case proven:
		return u.proven < n-tenth
	case fresh:
		return u.unknown+u.laggard < n-tenth || u.unknown < tenth/2
	case eager:
		return free > n/2
	}
	return free > tenth || u.laggard < tenth/2
}

func tenthOf(n int) int {
	if n >= 4 {
		return max(1, n/10)
	}
	return n / 10
}

// mayHold reports whether an account, which has u of all that is in memory, may
// have one more delivery of a lane of rank r there. What is in memory is begun as
// soon as permits allows it, so that this shares the n slots among accounts:
//
//	proven     whatever there is
//	fresh      no more than would still be free, so that whoever comes next finds
//	           as much as those before him have; who is alone, eight times that
//	eager      half of that, so that one destination does not take it all
//	laggards   as fresh ones and, of all accounts together, a quarter of all slots
//
// A few are safe to every account, whatever the others have.
func (u use) mayHold(all use, r rank, n int, alone bool) bool {
	few, free, own := max(1, n/32), n-tenthOf(n)-all.unproven(), u.unproven()
	if alone {
		free *= 8
	}
	switch r {
	case proven:
		return true
	case eager:
		return own < max(few, free/2)
	case laggard:
		return own < max(few, free) && (u.laggard < few || all.laggard < max(1, n/4))
	}
	return own < max(few, free)
}

// eagerly is how many more at a time mayHold allows of a lane that is not proven,
// if it allows one.
func (u use) eagerly(all use, n int) int {
	return max(1, (n-tenthOf(n)-all.unproven()-2*u.unproven())/3)
}
