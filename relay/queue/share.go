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

func (u use) total() int { return u.unknown + u.proven + u.laggard }

// permits reports whether a lane of rank r may take one more of n slots. A
// slot given to a tarpit is gone for minutes, so whoever is not known to be
// quick must leave room before it is known what he is:
//
//	laggards   at most a quarter of all, and not the last free tenth
//	eager      only while half of all are free
//	fresh      with eager lanes and laggards together, all but a tenth
//	proven     all but a tenth, lest nobody new can prove himself
//
// Half a tenth is safe to laggards, or none would recover beside lanes that
// are busy all the time.
func (u use) permits(r rank, n int) bool {
	free, tenth := n-u.total(), n/10
	if n >= 4 {
		tenth = max(1, tenth)
	}
	if free <= 0 {
		return false
	}
	switch r {
	case proven:
		return u.proven < n-tenth
	case fresh:
		return u.unknown+u.laggard < n-tenth
	case eager:
		return free > n/2
	}
	return u.laggard < max(1, n/4) && (free > tenth || u.laggard < tenth/2)
}
