package relay

import (
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
)

// Result is what one attempt came to. relay/deliver makes it, Step reads it.
type Result struct {
	// Outcomes has one entry per waiting recipient, in the order of
	// Delivery.Waiting.
	Outcomes []Outcome
	// Attempt is the evidence to keep.
	Attempt Attempt
	// History is what policy.Conclude returned.
	History policy.History
	// Demanding: something was demanded of this attempt, whatever its lane
	// says, for settings may have changed since the message came.
	Demanding bool
	// Feedback is what the lane learns.
	Feedback Feedback
	// Cut: the attempt was cut short before everybody was asked about.
	Cut bool
	// Crowded: nothing more was tried, because this host or address ("192.0.2.1:25")
	// had all the connections it may have.
	Crowded string
	// Changed: nothing more was tried, because the demands have changed since it
	// began.
	Changed bool
}

// Outcome is what became of one recipient.
type Outcome struct {
	Failure *Failure // nil: delivered
	Reply   Reply    // the final reply of the host that took it
	// Relayed marks that the host that took it lists DSN, so success reports
	// are its to make (RFC 3461 §5.2.2).
	Relayed bool
	Session events.Session // of the host that decided; zero without a connection
}

// Feedback is what an attempt says about its destination's health. A block by
// policy says nothing: the host works, and other senders demand less of it.
type Feedback string

// The feedbacks: the destination worked, is in trouble, or neither.
const (
	Neutral Feedback = ""
	Healthy Feedback = "healthy"
	Trouble Feedback = "trouble"
)

// Schedule is when deliveries are retried and given up.
type Schedule struct {
	RetryAfter time.Duration // first retry
	RetryMax   time.Duration // delays grow by half up to this
	Lifetime   time.Duration // then it is over
	DelayAfter time.Duration // when NOTIFY=DELAY is answered
}

// Delay is how long to wait after the given number of attempts: RetryAfter,
// growing by half each time, at most RetryMax.
func (s Schedule) Delay(attempts int) time.Duration {
	d := s.RetryAfter
	for range attempts - 1 {
		if d >= s.RetryMax {
			break
		}
		d += d / 2
	}
	return min(d, max(s.RetryMax, s.RetryAfter))
}
