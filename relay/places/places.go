package places

import (
	"container/heap"
	"container/list"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"tlsrelay/policy/account"
)

// Conn is a connection that has a place, or asks for one.
type Conn interface {
	// ShowBy fixes when a stranger must have shown a key; zero: it need not any more.
	// It is called under the pool's lock, and calls nothing of the pool.
	ShowBy(t time.Time)
	// Resting reports whether it can end with nothing lost. It is called under the
	// pool's lock, too.
	Resting() bool
	// Asks reports whether it has sent something that is not answered, and may be a
	// key. It is called under the pool's lock, too.
	Asks() bool
	// Overdue reports whether it has been at work for so long that it may end all the
	// same. It is called under the pool's lock, too.
	Overdue() bool
	// GiveWay ends a connection that has lost its place to another one.
	GiveWay(Loss)
}

// Loss is the loss of a place.
type Loss struct {
	Cause string // gave_way: a stranger's; account_share: that of an account with many
	IP    netip.Addr
	Who   account.ID // "": a stranger
}

// Fields tell the log of the latest of n losses by one cause.
func (l Loss) Fields(n int) []zap.Field {
	fields := []zap.Field{
		zap.String("cause", l.Cause), zap.Int("connections", n), zap.Stringer("client", l.IP), zap.Stringer("source", Source(l.IP)),
	}
	if l.Who != "" {
		fields = append(fields, zap.String("account", string(l.Who)))
	}
	return fields
}

// Limits are what a pool has to share out.
type Limits struct {
	Total          int           // places: strangers have a fifth at most, and a twentieth for them alone
	PerIP          int           // connections of one source; 0: no limit
	StrangersPerIP int           // strangers of one source; 0: no limit
	ShowTime       time.Duration // for a stranger to show a key, and less while places run out
	// Chance is how long a stranger keeps its place from others of its own source.
	// It is for protocols where a key takes a few round trips to be shown; 0: the
	// oldest goes at once, so that a newcomer always has a place.
	Chance time.Duration
	// OwnGoes lets a resting connection go for another one of its own account, where
	// that has as many as it can: a client that finds one closed opens the next.
	OwnGoes bool
}

// Pool shares places out by what callers have shown. A stranger, who has shown no
// key, has a place for a while, and loses it to others when places run out: its
// chance was to show one. Who has shown a key, or comes from a trusted network, never
// loses its place to a stranger, but to another account that has fewer.
//
//	who comes            what is full      what happens
//	anybody              PerIP             turned away
//	a stranger           StrangersPerIP    the oldest stranger of the source goes, once it has had its chance; else turned away
//	a stranger           strangers, or all the oldest stranger goes, of a source with very many first; without one, turned away.
//	                                       Who asks for something is spared for a while
//	a trusted client     all               the same stranger goes
//	a key, or a trusted  known             a resting or overdue connection goes, of the account that has most, or with OwnGoes of its own; else refused
type Pool struct {
	l         Limits
	strangers int // the most there may be of them
	known     int // and of the others: some places are always for those who want to show a key

	mu       sync.Mutex
	origins  map[netip.Prefix]*origin
	crowd    crowd // the origins of strangers, the largest first
	nStrange int
	nKnown   int
	holders  map[account.ID]*list.List // of known seats, the oldest login first
}

// hurried is the part of the time to show a key that is left when places have run out.
const hurried = 6

// New makes a pool without connections.
func New(l Limits) *Pool {
	return &Pool{
		l: l, strangers: max(1, l.Total/5), known: max(1, l.Total-max(1, l.Total/20)),
		origins: make(map[netip.Prefix]*origin), holders: make(map[account.ID]*list.List),
	}
}

// Strangers gives the most places that strangers may have.
func (ps *Pool) Strangers() int { return ps.strangers }

// origin is what counts as one source of connections.
type origin struct {
	prefix    netip.Prefix
	all       int
	strangers list.List // of *Seat, the oldest first
	large     int       // beyond so many strangers it is large
	index     int       // in the crowd
}

// weight is how soon an origin's strangers go: those of large ones first, the others by
// age alone. Else a few clients at one address would go before any number of addresses
// with one each.
func (o *origin) weight() int {
	if n := o.strangers.Len(); n > max(1, o.large) {
		return n
	}
	return 1
}

// Seat is the place of one connection, which keeps it. The zero Seat is no place.
type Seat struct {
	conn   Conn
	ip     netip.Addr
	from   *origin       // nil: it has none, or no longer
	elem   *list.Element // among the strangers of its origin, or the seats of its account
	since  time.Time     // it came, or logged in
	who    account.ID    // "": a stranger
	secret string        // what it has shown; "" for a trusted client
	came   time.Time     // as a stranger
}

// gone is a connection that loses its place, to be told of it without the lock.
type gone struct {
	conn Conn // nil: none does
	loss Loss
}

func (g gone) tell() {
	if g.conn != nil {
		g.conn.GiveWay(g.loss)
	}
}

// Arrive gives a connection a place: as a stranger, or, where who is set, as one of
// that account's. Who loses its place for it is told. cause says by what bound there
// is none: max_connections_per_ip, max_strangers_per_ip or max_connections; "": it
// has one. While a client's address is not known, the bounds of one address do not
// hold.
func (ps *Pool) Arrive(s *Seat, c Conn, ip netip.Addr, who account.ID, now time.Time) (cause string) {
	ps.mu.Lock()
	s.conn = c
	out, cause := ps.admit(s, ip, who, now)
	ps.mu.Unlock()
	out.tell()
	return cause
}

func (ps *Pool) admit(s *Seat, ip netip.Addr, who account.ID, now time.Time) (out gone, cause string) {
	from := ps.origins[Source(ip)]
	if from == nil {
		from = &origin{prefix: Source(ip), index: -1, large: ps.strangers / 8}
	}
	named := ip.IsValid()
	var goes *Seat
	switch {
	case named && ps.l.PerIP > 0 && from.all >= ps.l.PerIP:
		return gone{}, "max_connections_per_ip"
	case who != "" && ps.nKnown >= ps.known:
		if goes = ps.givesWay(who); goes == nil {
			return gone{}, "max_connections"
		}
	case who != "":
		if ps.nStrange+ps.nKnown >= ps.l.Total {
			goes = ps.oldest(now)
		}
	case named && ps.l.StrangersPerIP > 0 && from.strangers.Len() >= ps.l.StrangersPerIP:
		goes = from.oldest()
		if now.Sub(goes.since) < min(ps.l.Chance, ps.l.ShowTime) {
			return gone{}, "max_strangers_per_ip"
		}
	case ps.nStrange >= ps.strangers, ps.nStrange+ps.nKnown >= ps.l.Total:
		if goes = ps.oldest(now); goes == nil {
			return gone{}, "max_connections"
		}
	}
	out = ps.vacate(goes)
	s.ip = ip
	ps.take(s, who, from, now)
	return out, ""
}

func (ps *Pool) take(s *Seat, who account.ID, from *origin, now time.Time) {
	*s = Seat{conn: s.conn, ip: s.ip, from: from, since: now, who: who}
	ps.origins[from.prefix] = from // it may have been forgotten just now
	from.all++
	if who != "" {
		ps.nKnown++
		s.elem = ps.seatsOf(who).PushBack(s)
		s.conn.ShowBy(time.Time{})
		return
	}
	ps.nStrange++
	s.came = now
	s.elem = from.strangers.PushBack(s)
	ps.crowd.settle(from)
	s.conn.ShowBy(now.Add(patience(ps.l.ShowTime, ps.fullness(from))))
}

// fullness is how much is taken of what strangers may have, in percent: of all, or
// of the share of one source, whichever is nearer to its end.
func (ps *Pool) fullness(from *origin) int {
	full := 100 * ps.nStrange / max(1, min(ps.strangers, ps.l.Total-ps.nKnown))
	if ps.l.StrangersPerIP > 0 {
		full = max(full, 100*from.strangers.Len()/ps.l.StrangersPerIP)
	}
	return full
}

// patience is how long a stranger may take to show a key: all the time while half of
// the places are free, then less and less.
func patience(all time.Duration, full int) time.Duration {
	if full <= 50 {
		return all
	}
	return max(all*time.Duration(100-full)/50, all/hurried)
}

// Rename tells the address of a client that was not known when it came. It may have
// to go for it, which cause says; gave_way: it went before.
func (ps *Pool) Rename(s *Seat, ip netip.Addr, who account.ID, now time.Time) (cause string) {
	ps.mu.Lock()
	if s.from == nil {
		ps.mu.Unlock()
		return "gave_way" // to others, already
	}
	ps.vacate(s)
	out, cause := ps.admit(s, ip, who, now)
	ps.mu.Unlock()
	out.tell()
	return cause
}

// Login gives a connection's place to an account that secret opens. cause says why
// not: max_connections, or gave_way where it went before.
func (ps *Pool) Login(s *Seat, who account.ID, secret string, now time.Time) (cause string) {
	ps.mu.Lock()
	out, cause := ps.login(s, who, secret, now)
	ps.mu.Unlock()
	out.tell()
	return cause
}

func (ps *Pool) login(s *Seat, who account.ID, secret string, now time.Time) (out gone, cause string) {
	if s.from == nil {
		return gone{}, "gave_way"
	}
	if s.who == "" && ps.nKnown >= ps.known {
		goes := ps.givesWay(who)
		if goes == nil {
			return gone{}, "max_connections"
		}
		out = ps.vacate(goes)
	}
	from := s.from
	ps.vacate(s)
	ps.take(s, who, from, now)
	s.secret = secret
	return out, ""
}

// givesWay finds a connection that goes for another one of an account: of the one
// that has most, unless that has hardly more, and not in the middle of its work while
// that has not taken long.
func (ps *Pool) givesWay(who account.ID) *Seat {
	var most *list.List
	for _, l := range ps.holders {
		if most == nil || l.Len() > most.Len() {
			most = l
		}
	}
	own := ps.holders[who]
	has := 1 // with the one that comes
	if own != nil {
		has += own.Len()
	}
	if most != nil && most.Len() > has {
		if s := resting(most); s != nil {
			return s
		}
	}
	if ps.l.OwnGoes && own != nil {
		return resting(own)
	}
	return nil
}

// resting finds the oldest of an account's seats that can go: one that rests, or else
// one that is overdue.
func resting(l *list.List) *Seat {
	for _, goes := range []func(Conn) bool{Conn.Resting, Conn.Overdue} {
		for e := l.Front(); e != nil; e = e.Next() {
			if s := e.Value.(*Seat); goes(s.conn) {
				return s
			}
		}
	}
	return nil
}

func (ps *Pool) seatsOf(who account.ID) *list.List {
	l := ps.holders[who]
	if l == nil {
		l = list.New()
		ps.holders[who] = l
	}
	return l
}

// Leave gives the place of a connection back, if it still has one.
func (ps *Pool) Leave(s *Seat) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.vacate(s)
}

// vacate takes a seat's place, if there is one, and says whose it was.
func (ps *Pool) vacate(s *Seat) gone {
	if s == nil || s.from == nil {
		return gone{}
	}
	from := s.from
	s.from = nil
	if from.all--; from.all == 0 {
		delete(ps.origins, from.prefix)
	}
	if s.who == "" {
		ps.nStrange--
		from.strangers.Remove(s.elem)
		ps.crowd.settle(from)
		return gone{s.conn, Loss{"gave_way", s.ip, ""}}
	}
	ps.nKnown--
	l := ps.holders[s.who]
	if l.Remove(s.elem); l.Len() == 0 {
		delete(ps.holders, s.who)
	}
	return gone{s.conn, Loss{"account_share", s.ip, s.who}}
}

// Counts gives how many strangers have a place, and how many others.
func (ps *Pool) Counts() (strangers, known int) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.nStrange, ps.nKnown
}

// Login is what a connection has shown, and whose that is.
type Login struct {
	Who    account.ID
	Secret string
}

// Logins gives the connections that have shown a key.
func (ps *Pool) Logins() map[Login][]Conn {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	by := make(map[Login][]Conn)
	for who, l := range ps.holders {
		for e := l.Front(); e != nil; e = e.Next() {
			if s := e.Value.(*Seat); s.secret != "" {
				by[Login{who, s.secret}] = append(by[Login{who, s.secret}], s.conn)
			}
		}
	}
	return by
}

// oldest finds the stranger that goes, nil if there is none. Where strangers come
// faster than this machine can hear them out, one whose key has arrived and is not
// read yet would go with the silent ones: for a while it is spared, as if it had come
// just now.
func (ps *Pool) oldest(now time.Time) *Seat {
	for range maxSpared {
		s := ps.crowd.oldest()
		if s == nil || now.Sub(s.came) > sparedFor || !s.conn.Asks() {
			return s
		}
		s.since = now
		s.from.strangers.MoveToBack(s.elem)
		ps.crowd.settle(s.from)
	}
	return ps.crowd.oldest()
}

const (
	sparedFor = 5 * time.Second // from when it came
	maxSpared = 64              // are looked at for one newcomer
)

func (o *origin) oldest() *Seat { return o.strangers.Front().Value.(*Seat) }

// crowd is the heap of the origins that have strangers: the largest is on top, and among
// those that are not large the one whose oldest came first.
type crowd []*origin

// oldest is the stranger that goes first, nil if there is none.
func (c crowd) oldest() *Seat {
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
	if n, m := c[i].weight(), c[j].weight(); n != m {
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
