package submission

import (
	"container/heap"
	"container/list"
	"net/netip"
	"sync"
	"time"

	"tlsrelay/policy/account"
)

// Places are shared out by what callers have shown. A stranger, who has shown no
// key, has a place for a while, and loses it to others when places run out: its
// chance was to log in. Who has logged in, or comes from a trusted network, never
// loses its place to a stranger, but to another account that has fewer.
//
//	who comes              what is full            what happens
//	anybody                max_connections_per_ip  turned away
//	a stranger             max_strangers_per_ip    the oldest stranger of the source goes, once it has had its chance; else turned away
//	a stranger             strangers, or all       the oldest stranger goes, of the source that has most; without one, turned away
//	a trusted client       all                     the same stranger goes
//	a login, or a trusted  known                   a resting connection goes, of the account that has most; else refused
type places struct {
	total        int // of all connections
	strangers    int // of strangers among them
	known        int // of the others: some places are always for those who want to log in
	perIP        int // connections of one source; 0: no limit
	strangersPer int // strangers of one source; 0: no limit
	loginTime    time.Duration

	mu       sync.Mutex
	origins  map[netip.Prefix]*origin
	crowd    crowd // the origins of strangers, the largest first
	nStrange int
	nKnown   int
	holders  map[account.ID]*list.List // of known seats, the oldest login first
}

const (
	// chance is how long a stranger keeps its place from others of its own source:
	// a login takes a few round trips.
	chance = 5 * time.Second
	// hurried is the part of the login time that is left when places have run out.
	hurried = 6
)

// newPlaces shares max_connections out: strangers are a fifth at most, and a
// twentieth is for them alone.
func newPlaces(o Options) *places {
	return &places{
		total: o.MaxConnections, strangers: max(1, o.MaxConnections/5),
		known: max(1, o.MaxConnections-max(1, o.MaxConnections/20)),
		perIP: o.MaxPerIP, strangersPer: o.MaxStrangersPerIP, loginTime: o.LoginTimeout,
		origins: make(map[netip.Prefix]*origin), holders: make(map[account.ID]*list.List),
	}
}

// origin is what counts as one source of connections.
type origin struct {
	prefix    netip.Prefix
	all       int
	strangers list.List // of *seat, the oldest first
	index     int       // in the crowd
}

// seat is the place of one connection. Of places.mu.
type seat struct {
	peer   *peer
	from   *origin       // nil: it has none, or no longer
	elem   *list.Element // among the strangers of its origin, or the seats of its account
	since  time.Time     // it came, or logged in
	who    account.ID    // "": a stranger
	secret string        // what it has logged in with; "" for a trusted client
}

// arrive gives a connection a place: as a stranger, or, where who is set, as one of
// that account's. cause says by what bound there is none. Who loses its place for
// it is the caller's to end. While a client's address is not known, the bounds of
// one address do not hold.
func (ps *places) arrive(p *peer, who account.ID, now time.Time) (out *peer, cause string) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.admit(p, who, now)
}

func (ps *places) admit(p *peer, who account.ID, now time.Time) (out *peer, cause string) {
	from := ps.origins[source(p.ip)]
	if from == nil {
		from = &origin{prefix: source(p.ip), index: -1}
	}
	named := p.ip.IsValid()
	var goes *seat
	switch {
	case named && ps.perIP > 0 && from.all >= ps.perIP:
		return nil, "max_connections_per_ip"
	case who != "" && ps.nKnown >= ps.known:
		if goes = ps.givesWay(who); goes == nil {
			return nil, "max_connections"
		}
	case who != "":
		if ps.nStrange+ps.nKnown >= ps.total {
			goes = ps.crowd.oldest()
		}
	case named && ps.strangersPer > 0 && from.strangers.Len() >= ps.strangersPer:
		goes = from.oldest()
		if now.Sub(goes.since) < min(chance, ps.loginTime) {
			return nil, "max_strangers_per_ip"
		}
	case ps.nStrange >= ps.strangers, ps.nStrange+ps.nKnown >= ps.total:
		if goes = ps.crowd.oldest(); goes == nil {
			return nil, "max_connections"
		}
	}
	if goes != nil {
		out = goes.peer
		ps.vacate(goes)
	}
	ps.take(p, who, from, now)
	return out, ""
}

func (ps *places) take(p *peer, who account.ID, from *origin, now time.Time) {
	s := &p.seat
	*s = seat{peer: p, from: from, since: now, who: who}
	ps.origins[from.prefix] = from // it may have been forgotten just now
	from.all++
	if who != "" {
		p.commands = -1 // and no longer counted
		ps.nKnown++
		s.elem = ps.seatsOf(who).PushBack(s)
		return
	}
	ps.nStrange++
	s.elem = from.strangers.PushBack(s)
	ps.crowd.settle(from)
	p.loginUntil(now.Add(patience(ps.loginTime, ps.fullness(from))))
}

// fullness is how much is taken of what strangers may have, in percent: of all, or
// of the share of one source, whichever is nearer to its end.
func (ps *places) fullness(from *origin) int {
	full := 100 * ps.nStrange / max(1, min(ps.strangers, ps.total-ps.nKnown))
	if ps.strangersPer > 0 {
		full = max(full, 100*from.strangers.Len()/ps.strangersPer)
	}
	return full
}

// patience is how long a stranger may take to log in: all the time while half of
// the places are free, then less and less.
func patience(all time.Duration, full int) time.Duration {
	if full <= 50 {
		return all
	}
	return max(all*time.Duration(100-full)/50, all/hurried)
}

// rename tells the address of a client that was not known when it came. It may have
// to go for it, which cause says.
func (ps *places) rename(p *peer, ip netip.Addr, who account.ID, now time.Time) (out *peer, cause string) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p.seat.from == nil {
		return nil, "gave_way" // to others, already
	}
	ps.vacate(&p.seat)
	p.ip = ip
	return ps.admit(p, who, now)
}

// login gives a stranger's place to its account. cause says why not.
func (ps *places) login(p *peer, who account.ID, secret string, now time.Time) (out *peer, cause string) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	s := &p.seat
	if s.from == nil {
		return nil, "gave_way"
	}
	if s.who == "" && ps.nKnown >= ps.known {
		goes := ps.givesWay(who)
		if goes == nil {
			return nil, "max_connections"
		}
		out = goes.peer
		ps.vacate(goes)
	}
	from := s.from
	ps.vacate(s)
	p.loginUntil(time.Time{})
	ps.take(p, who, from, now)
	s.secret = secret
	return out, ""
}

// givesWay finds a connection that goes for another one of an account: of the one
// that has most, unless that has hardly more, and not in the middle of a message.
func (ps *places) givesWay(who account.ID) *seat {
	var most *list.List
	for _, l := range ps.holders {
		if most == nil || l.Len() > most.Len() {
			most = l
		}
	}
	has := 1 // with the one that comes
	if l := ps.holders[who]; l != nil {
		has += l.Len()
	}
	if most == nil || most.Len() <= has {
		return nil
	}
	for e := most.Front(); e != nil; e = e.Next() {
		if s := e.Value.(*seat); s.peer.resting.Load() {
			return s
		}
	}
	return nil
}

func (ps *places) seatsOf(who account.ID) *list.List {
	l := ps.holders[who]
	if l == nil {
		l = list.New()
		ps.holders[who] = l
	}
	return l
}

// leave gives the place of a connection back, if it still has one.
func (ps *places) leave(p *peer) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.vacate(&p.seat)
}

func (ps *places) vacate(s *seat) {
	from := s.from
	if from == nil {
		return
	}
	s.from = nil
	if from.all--; from.all == 0 {
		delete(ps.origins, from.prefix)
	}
	if s.who == "" {
		ps.nStrange--
		from.strangers.Remove(s.elem)
		ps.crowd.settle(from)
		return
	}
	ps.nKnown--
	l := ps.holders[s.who]
	if l.Remove(s.elem); l.Len() == 0 {
		delete(ps.holders, s.who)
	}
}

// counts gives how many strangers have a place, and how many others.
func (ps *places) counts() (strangers, known int) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.nStrange, ps.nKnown
}

// loggedIn is what a connection has logged in with, and as whom.
type loggedIn struct {
	who    account.ID
	secret string
}

// logins gives the connections that have logged in.
func (ps *places) logins() map[loggedIn][]*peer {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	by := make(map[loggedIn][]*peer)
	for who, l := range ps.holders {
		for e := l.Front(); e != nil; e = e.Next() {
			if s := e.Value.(*seat); s.secret != "" {
				by[loggedIn{who, s.secret}] = append(by[loggedIn{who, s.secret}], s.peer)
			}
		}
	}
	return by
}

func (o *origin) oldest() *seat { return o.strangers.Front().Value.(*seat) }

// crowd is the heap of the origins that have strangers: the one with most of them
// is on top, and among those with as many the one whose oldest came first.
type crowd []*origin

// oldest is the stranger that goes first, nil if there is none.
func (c crowd) oldest() *seat {
	if len(c) == 0 {
		return nil
	}
	return c[0].oldest()
}

// settle puts an origin where it belongs by now.
func (c *crowd) settle(o *origin) {
	switch {
	case o.strangers.Len() == 0:
		heap.Remove(c, o.index)
	case o.index < 0:
		heap.Push(c, o)
	default:
		heap.Fix(c, o.index)
	}
}

// Len, Less, Swap, Push and Pop implement heap.Interface.

func (c crowd) Len() int { return len(c) }
func (c crowd) Less(i, j int) bool {
	if n, m := c[i].strangers.Len(), c[j].strangers.Len(); n != m {
		return n > m
	}
	return c[i].oldest().since.Before(c[j].oldest().since)
}
func (c crowd) Swap(i, j int) {
	c[i], c[j] = c[j], c[i]
	c[i].index, c[j].index = i, j
}
func (c *crowd) Push(x any) {
	o := x.(*origin)
	o.index = len(*c)
	*c = append(*c, o)
}
func (c *crowd) Pop() any {
	old := *c
	o := old[len(old)-1]
	old[len(old)-1] = nil
	*c = old[:len(old)-1]
	o.index = -1
	return o
}
