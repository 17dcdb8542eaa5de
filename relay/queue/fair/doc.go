// Package fair decides who gets the next slot: which destination may make one
// more attempt, and how much of what all share an account may have. Its decisions
// are pure functions over plain data, and its waiting lines know no clock; the
// loop of relay/queue keeps the data and acts.
//
//	window.go   Window: how many attempts at a time a destination bears, and when
//	            it cools off; Standing: what it has shown of itself lately
//	quota.go    Slots: how many slots are taken, by standing; whether one more is
//	            free for a rank, and whether an account is under its quota
//	turns.go    FIFO, Turns, RankedFIFO, RankedTurns: who is next among those that
//	            wait for the same thing
//
// A slot is the right to make one attempt. A tarpit keeps one for minutes, so
// slots are given by what is known: healthy destinations have most of them, those
// of which nothing is known yet must leave room for each other, and slow ones have
// what nobody else needs.
package fair
