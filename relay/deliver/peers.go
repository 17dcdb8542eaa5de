package deliver

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// How long what an address has shown of itself is believed. A day is long
// enough to spare a host what it cannot do, and short enough for a host that
// was mended; what a busy hour shows may be over in the next one.
const (
	provenFor  = 24 * time.Hour // it takes BDAT, and answers in step
	doubtedFor = 24 * time.Hour // it answered out of step, or does not take BDAT
	carriesFor = 24 * time.Hour // how many messages it takes over one connection
	hangsUpFor = time.Hour      // it closes connections after a message
)

// maxPeers bounds the addresses remembered. Whoever is forgotten costs a round
// trip more until it is known again.
const maxPeers = 20000

// peer is what one address has shown of itself. The zero peer is unknown.
type peer struct {
	chunks    time.Time // until when it has proven to take BDAT
	noChunks  time.Time // until when BDAT is not tried
	outOfStep time.Time // until when it is asked step by step
	hangsUp   time.Time // until when its connections carry one message each
	hangup    time.Time // when it last closed a connection right after a message
	noList    time.Time // until when it is asked QUIT where others are asked EHLO
	carries   int       // messages a connection; 0: not known
	carried   time.Time // until when that holds
	// answers are the fingerprints of its answers to content, learned in step; those
	// of its answers to MAIL and RCPT are not among them. alike tells that there
	// are none such: it answers everything in the same words.
	answers []uint64
	alike   bool
	learned time.Time // until when
}

// maxAnswers bounds the fingerprints kept of one address.
const maxAnswers = 4

// knows reports whether w is how the address answers content.
func (p *peer) knows(w uint64) bool { return slices.Contains(p.answers, w) }

// learnedAt reports whether it is known at a time how the address answers content.
func (p peer) learnedAt(now time.Time) bool { return now.Before(p.learned) }

// learn takes in the fingerprint of an answer to content that was in step, beside
// those of the envelope it answered.
func (p *peer) learn(w uint64, envelope []uint64, now time.Time) {
	if !p.learnedAt(now) {
		p.answers, p.alike = nil, false
	}
	p.learned = now.Add(provenFor)
	for _, e := range envelope {
		if i := slices.Index(p.answers, e); i >= 0 {
			p.answers = slices.Delete(slices.Clone(p.answers), i, i+1)
		}
	}
	switch {
	case slices.Contains(envelope, w):
		p.alike = true
	case !p.knows(w):
		// A new slice: copies of the peer are read without the lock.
		keep := p.answers[max(0, len(p.answers)-maxAnswers+1):]
		p.answers = append(slices.Clone(keep), w)
	}
}

// messages is how many a connection to it carries; 0: any number.
func (p peer) messages(now time.Time) int {
	switch {
	case now.Before(p.hangsUp), now.Before(p.outOfStep):
		return 1 // whatever else is on its way belongs to that message
	case now.Before(p.carried):
		return p.carries
	}
	return 0
}

// over reports whether nothing of p holds any more.
func (p peer) over(now time.Time) bool {
	for _, t := range [...]time.Time{p.chunks, p.noChunks, p.outOfStep, p.hangsUp, p.carried, p.learned, p.noList} {
		if now.Before(t) {
			return false
		}
	}
	return true
}

// peers remembers what addresses have shown of themselves. Its methods are safe
// for concurrent use.
type peers struct {
	mu    sync.Mutex
	known map[netip.AddrPort]*peer
}

// get gives what is known of an address now.
func (ps *peers) get(addr netip.AddrPort) peer {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.known[addr]; p != nil {
		return *p
	}
	return peer{}
}

// change has f write down what an address has shown.
func (ps *peers) change(addr netip.AddrPort, f func(p *peer, now time.Time)) {
	now := time.Now()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.known[addr]
	if p == nil {
		if ps.known == nil {
			ps.known = make(map[netip.AddrPort]*peer)
		}
		ps.makeRoom(now)
		p = &peer{}
		ps.known[addr] = p
	}
	f(p, now)
}

// makeRoom forgets some addresses where there are too many: of a few, those of
// which nothing holds any more, else one.
func (ps *peers) makeRoom(now time.Time) {
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

// stepByStep notes an address whose replies were not in step.
func (ps *peers) stepByStep(addr netip.AddrPort) {
	ps.change(addr, func(p *peer, now time.Time) {
		p.outOfStep, p.chunks, p.answers = now.Add(doubtedFor), time.Time{}, nil
	})
}

// withoutChunks notes an address that lists CHUNKING and does not take BDAT.
func (ps *peers) withoutChunks(addr netip.AddrPort) {
	ps.change(addr, func(p *peer, now time.Time) { p.noChunks, p.chunks = now.Add(doubtedFor), time.Time{} })
}

// hungUp notes an address that closed a connection without a word right after
// it had taken a message. The second time, that is its habit: what is on its way
// when it closes may have been taken or not, so nothing is sent a second time over
// a connection to it.
func (ps *peers) hungUp(addr netip.AddrPort) {
	ps.change(addr, func(p *peer, now time.Time) {
		if now.Sub(p.hangup) < hangsUpFor {
			p.hangsUp = now.Add(hangsUpFor)
		}
		p.hangup = now
	})
}

// carriesAtMost notes how many messages an address takes over one connection.
func (ps *peers) carriesAtMost(addr netip.AddrPort, n int) {
	ps.change(addr, func(p *peer, now time.Time) { p.carries, p.carried = n, now.Add(carriesFor) })
}
