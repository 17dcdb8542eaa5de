package peer

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"tlsrelay/relay/cache"
)

// How long it counts what an address has shown. A day is long enough to spare a host what
// it cannot do, and short enough for a host that was mended; what a busy hour shows may be
// over in the next one.
const (
	ProvenFor  = 24 * time.Hour // it takes BDAT, and answers in step
	DoubtedFor = 24 * time.Hour // it answered out of step, or does not take BDAT
	carriesFor = 24 * time.Hour // how many messages it allows over one connection
	hangsUpFor = time.Hour      // it closes connections after a message
)

// maxPeers bounds the addresses remembered. One that is forgotten costs a round trip more
// until it is known again.
const maxPeers = 20000

// Traits are what one address has shown of itself. The zero Traits are those of an unknown address.
type Traits struct {
	Chunks    time.Time // until when it has proven to take BDAT
	NoChunks  time.Time // until when BDAT is not tried
	OutOfStep time.Time // until when every command waits for its reply
	HangsUp   time.Time // until when its connections carry one message each
	Hangup    time.Time // when it last closed a connection right after a message
	NoList    time.Time // until when QUIT shows whether it is in step, and not EHLO
	Carries   int       // how many messages it allows over one connection; 0: not known
	carried   time.Time // until when that holds
	// Answers are the fingerprints of its positive replies to content that were in step
	// and are not those of its replies to MAIL and RCPT. Alike tells that there are no
	// such: it answers everything alike.
	Answers []uint64
	Alike   bool
	Learned time.Time // until when Answers and Alike hold
}

// maxAnswers bounds the fingerprints kept of one address.
const maxAnswers = 4

// Knows reports whether w is the fingerprint of an answer to content.
func (p *Traits) Knows(w uint64) bool { return slices.Contains(p.Answers, w) }

// LearnedAt reports whether it is known at a time how the address answers content.
func (p Traits) LearnedAt(now time.Time) bool { return now.Before(p.Learned) }

// Learn takes in the fingerprint of a reply to content that was in step, and those of the
// replies to its envelope.
func (p *Traits) Learn(w uint64, envelope []uint64, now time.Time) {
	if !p.LearnedAt(now) {
		p.Answers, p.Alike = nil, false
	}
	p.Learned = now.Add(ProvenFor)
	for _, e := range envelope {
		if i := slices.Index(p.Answers, e); i >= 0 {
			p.Answers = slices.Delete(slices.Clone(p.Answers), i, i+1)
		}
	}
	switch {
	case slices.Contains(envelope, w):
		p.Alike = true
	case !p.Knows(w):
		// A new slice, because copies of the traits are read without the lock.
		keep := p.Answers[max(0, len(p.Answers)-maxAnswers+1):]
		p.Answers = append(slices.Clone(keep), w)
	}
}

// Messages is how many messages a connection to it carries; 0: any number.
func (p Traits) Messages(now time.Time) int {
	switch {
	case now.Before(p.HangsUp), now.Before(p.OutOfStep):
		return 1 // what else it sends belongs to that message
	case now.Before(p.carried):
		return p.Carries
	}
	return 0
}

// Memory has the traits of addresses. The zero Memory knows none. Its methods are safe for
// concurrent use.
type Memory struct {
	mu     sync.Mutex // of changes
	begin  sync.Once
	traits *cache.Cache[netip.AddrPort, Traits]
}

// keepTraits is how long an address is remembered that shows nothing new: no trait holds
// longer.
const keepTraits = 24 * time.Hour

func (ps *Memory) known() *cache.Cache[netip.AddrPort, Traits] {
	ps.begin.Do(func() { ps.traits = cache.New[netip.AddrPort, Traits](maxPeers) })
	return ps.traits
}

// Get gives what an address has shown.
func (ps *Memory) Get(addr netip.AddrPort) Traits {
	p, _ := ps.known().Get(addr, time.Now())
	return p
}

// Change has f note what an address has shown.
func (ps *Memory) Change(addr netip.AddrPort, f func(p *Traits, now time.Time)) {
	now := time.Now()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p, _ := ps.known().Get(addr, now)
	f(&p, now)
	ps.known().Put(addr, p, now, now.Add(keepTraits))
}

// StepByStep notes an address whose replies were out of step.
func (ps *Memory) StepByStep(addr netip.AddrPort) {
	ps.Change(addr, func(p *Traits, now time.Time) {
		p.OutOfStep, p.Chunks, p.Answers = now.Add(DoubtedFor), time.Time{}, nil
	})
}

// WithoutChunks notes an address that lists CHUNKING and does not take BDAT.
func (ps *Memory) WithoutChunks(addr netip.AddrPort) {
	ps.Change(addr, func(p *Traits, now time.Time) { p.NoChunks, p.Chunks = now.Add(DoubtedFor), time.Time{} })
}

// HungUp notes an address that closed a connection, without 421, right after it had
// accepted a message. The second time, that is its habit, and its connections carry one
// message each: it may have accepted what is under way when it closes, or not.
func (ps *Memory) HungUp(addr netip.AddrPort) {
	ps.Change(addr, func(p *Traits, now time.Time) {
		if now.Sub(p.Hangup) < hangsUpFor {
			p.HangsUp = now.Add(hangsUpFor)
		}
		p.Hangup = now
	})
}

// CarriesAtMost notes how many messages an address allows over one connection.
func (ps *Memory) CarriesAtMost(addr netip.AddrPort, n int) {
	ps.Change(addr, func(p *Traits, now time.Time) { p.Carries, p.carried = n, now.Add(carriesFor) })
}
