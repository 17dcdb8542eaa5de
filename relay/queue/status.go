package queue

import (
	"time"

	"tlsrelay/events"
	"tlsrelay/relay"
)

// Standing is what a lane's destination has shown of itself lately. Slots are
// shared by it.
type Standing string

// Unknown lanes have had no answer yet, proven ones have worked, laggards are
// in trouble or slow.
const (
	Unknown Standing = "unknown"
	Proven  Standing = "proven"
	Laggard Standing = "laggard"
)

// LaneStatus is how one lane stands.
type LaneStatus struct {
	Lane     relay.Lane    `json:"lane"`
	Standing Standing      `json:"standing"`
	Window   int           `json:"window"`   // attempts at a time
	Busy     int           `json:"busy"`     // attempts running
	Claimed  int           `json:"claimed"`  // in memory, not begun
	Accounts int           `json:"accounts"` // with anything queued here
	Due      time.Time     `json:"due"`      // when the first of the rest is due; zero: no rest
	CoolOff  time.Time     `json:"cool_off"` // nothing is tried until then; zero: not cooling off
	Last     events.Reason `json:"last"`     // of the newest failed attempt
}
