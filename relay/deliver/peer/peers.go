package peer

import (
	"net/netip"
	"slices"
	"sync"
	"time"
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

// over reports whether nothing in p holds any more.
func (p Traits) over(now time.Time) bool {
	for _, t := range [...]time.Time{p.Chunks, p.NoChunks, p.OutOfStep, p.HangsUp, p.carried, p.Learned, p.NoList} {
		if now.Before(t) {
			return false
		}
	}
	return true
}

// Memory has the traits of addresses. The zero Memory knows none. Its methods are safe for
// concurrent use.
type Memory struct {
	mu    sync.Mutex
	known map[netip.AddrPort]*Traits
}

// Get gives what an address has shown.
func (ps *Memory) Get(addr netip.AddrPort) Traits {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.known[addr]; p != nil {
		return *p
	}
	return Traits{}
}

// Change has f note what an address has shown.
func (ps *Memory) Change(addr netip.AddrPort, f func(p *Traits, now time.Time)) {
	now := time.Now()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.known[addr]
	if p == nil {
		if ps.known == nil {
			ps.known = make(map[netip.AddrPort]*Traits)
		}
		ps.makeRoom(now)
		p = &Traits{}
		ps.known[addr] = p
	}
	f(p, now)
}

// makeRoom forgets addresses when there are too many: of a few, those of which nothing
// holds any more, or else one.
func (ps *Memory) makeRoom(now time.Time) {
	if len(ps.known) < maxPeers {
		return
	}
	looked, last := 0, netip.AddrPort{}
	for addr, p := range ps.known {
		if last = addr; p.over(now) {
			delete(ps.known, addr)
		}
		if looked++; looked == 16 {
			break
		}
	}
	if len(ps.known) >= maxPeers {
		delete(ps.known, last)
	}
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
