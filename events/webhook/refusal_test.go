package webhook

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// hung is the status of a consumer that takes the request and never answers.
const hung = -1

// consumer is an endpoint in false time that remembers what it was sent.
type consumer struct {
	t      *testing.T
	answer func(ids []string) int

	posts int
	taken map[string]int // how often, by id
	alone map[string]int // how often an id was sent by itself
	sizes []int
	at    map[string]time.Time // when it was taken
}

func newConsumer(t *testing.T, answer func(ids []string) int) *consumer {
	return &consumer{t: t, answer: answer, taken: map[string]int{}, alone: map[string]int{}, at: map[string]time.Time{}}
}

func (c *consumer) serve(r *http.Request, body []byte) (int, error) {
	ids := idsOf(c.t, body)
	c.posts++
	c.sizes = append(c.sizes, len(ids))
	if len(ids) == 1 {
		c.alone[ids[0]]++
	}
	status := c.answer(ids)
	if status == hung {
		httptrace.ContextClientTrace(r.Context()).GotConn(httptrace.GotConnInfo{})
		return 0, context.DeadlineExceeded
	}
	if status/100 == 2 {
		for _, id := range ids {
			c.taken[id]++
			c.at[id] = time.Now()
		}
	}
	return status, nil
}

// posted is how many posts came so far.
func (c *consumer) posted() int {
	turns.Lock()
	defer turns.Unlock()
	return c.posts
}

// missing gives those of ids that were not taken once.
func (c *consumer) missing(ids []string) (bad []string) {
	for _, id := range ids {
		if c.taken[id] != 1 {
			bad = append(bad, fmt.Sprintf("%s %d times", id, c.taken[id]))
		}
	}
	return bad
}

func first(all []string) []string { return all[:min(3, len(all))] }

// refuses answers status to every batch with one of the ids, and 200 otherwise.
func refuses(status int, poison []string) func([]string) int {
	bad := setOf(poison)
	return func(ids []string) int {
		if slices.ContainsFunc(ids, func(id string) bool { return bad[id] }) {
			return status
		}
		return 200
	}
}

// observed makes a Sender in false time whose log is kept.
func observed(t *testing.T, o Options, box Outbox, f transport) (*Sender, *observer.ObservedLogs, func()) {
	core, logs := observer.New(zapcore.InfoLevel)
	s := New(o, box, zap.New(core), prometheus.NewPedanticRegistry())
	s.client.Transport = f
	_, stop := run(t, s)
	return s, logs, stop
}

// without gives ids without those of poison.
func without(ids, poison []string) []string {
	bad := setOf(poison)
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return bad[id] })
}

func setOf(ids []string) map[string]bool {
	set := make(map[string]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	return set
}

// Events that the consumer refuses hold up no other, wherever they stand, in
// whatever way they are refused; they are tried again by themselves for a day.
func TestRefusedEventsHoldUpNobody(t *testing.T) {
	const n = 400
	span := func(from, to int) (at []int) {
		for i := from; i < to; i++ {
			at = append(at, i)
		}
		return at
	}
	random := func(share float64) (at []int) {
		r := rand.New(rand.NewPCG(1, uint64(100*share)))
		for i := range n {
			if r.Float64() < share {
				at = append(at, i)
			}
		}
		return at
	}
	for _, c := range []struct {
		name   string
		poison []int
		status int
		within time.Duration // the good ones are all there
	}{
		{"head", []int{0}, 400, time.Minute},
		{"middle", []int{n / 2}, 400, time.Minute},
		{"end", []int{n - 1}, 500, time.Minute},
		{"head and end", []int{0, n - 1}, 422, time.Minute},
		{"a pair", []int{200, 201}, 500, time.Minute},
		{"three in a row", []int{200, 201, 202}, 500, time.Minute},
		{"a hundred in a row", span(150, 250), 400, 10 * time.Minute},
		{"the first half", span(0, n/2), 400, time.Minute},
		{"all but one", append(span(0, 270), span(271, n)...), 400, 25 * time.Hour},
		{"one of a hundred", random(.01), 400, 2 * time.Minute},
		{"one of ten", random(.1), 500, 5 * time.Minute},
		{"every other", random(.5), 400, 30 * time.Minute},
		{"redirected", []int{77}, 302, time.Minute},
		{"too large", []int{77}, 413, time.Minute},
		{"hangs", []int{77}, hung, 5 * time.Minute},
		{"two hang", []int{77, 300}, hung, 10 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box := newMemory(endpoints(1)...)
				all := box.commit("e0", n)
				var poison []string
				for _, i := range c.poison {
					poison = append(poison, all[i])
				}
				to := newConsumer(t, refuses(c.status, poison))
				s, logs, stop := observed(t, Options{}, box, to.serve)
				defer stop()
				advance(c.within)
				good := without(all, poison)
				if bad := to.missing(good); len(bad) > 0 {
					t.Fatalf("%d posts; of %d good events %d: %q", to.posts, len(good), len(bad), first(bad))
				}
				// What comes later is not held up, either.
				start := time.Now()
				later := box.commit("e0", 5)
				advance(11 * time.Minute)
				if bad := to.missing(later); len(bad) > 0 {
					t.Errorf("later: %q", bad)
				} else if took := to.at[later[0]].Sub(start); len(poison) < 10 && took > 2*time.Second {
					t.Errorf("a later event took %v", took)
				}
				if got := logs.FilterMessageSnippet("set aside").Len(); got != 1 {
					t.Errorf("%d log lines tell of events set aside", got)
				}
				if len(poison) > 10 {
					return // a day of so many is long
				}
				advance(25 * time.Hour)
				for _, id := range poison {
					if to.alone[id] == 0 || to.taken[id] != 0 {
						t.Fatalf("%s was sent alone %d times", id, to.alone[id])
					}
				}
				if got := total(t, s.m.dropped); got != float64(len(poison)) || box.waiting("e0") != 0 || len(s.Status()) != 0 {
					t.Errorf("%v dropped of %d; %d wait", got, len(poison), box.waiting("e0"))
				}
				if got := total(t, s.m.setAside); got != float64(len(poison)) {
					t.Errorf("%v set aside of %d", got, len(poison))
				}
			})
		})
	}
}

// While a refused event waits, the endpoint is not one that fails.
func TestStatusOfRowsSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := newMemory(endpoints(1)...)
		all := box.commit("e0", 20)
		to := newConsumer(t, refuses(400, all[:1]))
		s, _, stop := observed(t, Options{}, box, to.serve)
		advance(time.Hour)
		st := s.Status()
		if len(st) != 1 || st[0].Aside != 1 || st[0].Failures != 0 || st[0].Lag != 0 || !st[0].Oldest.IsZero() {
			t.Errorf("status %+v", st)
		}
		if s.aside() != 1 || s.lag() != 0 || s.failing() != 0 {
			t.Errorf("%d aside, lag %v, %d failing", s.aside(), s.lag(), s.failing())
		}
		to.answer = refuses(400, nil) // mended
		advance(11 * time.Minute)
		if bad := to.missing(all); len(bad) > 0 || s.aside() != 0 || len(s.Status()) != 0 {
			t.Errorf("%q, status %+v", bad, s.Status())
		}
		stop()
	})
}

// A consumer that takes nothing for an hour gets all when it does again, and is
// not flooded until then.
func TestConsumerFailsForAnHour(t *testing.T) {
	for _, status := range []int{400, 401, 404, 500, 502, 503, 429, 408, 301, 413, hung} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box := newMemory(endpoints(1)...)
				good := false
				to := newConsumer(t, func([]string) int {
					if good {
						return 204
					}
					return status
				})
				s, logs, stop := observed(t, Options{}, box, to.serve)
				all := box.commit("e0", 500)
				for range 60 { // and more keeps coming
					advance(time.Minute)
					all = append(all, box.commit("e0", 3)...)
				}
				if to.posts > 600 {
					t.Errorf("%d posts in the hour", to.posts)
				}
				if n := logs.Len(); n > 100 {
					t.Errorf("%d log lines in the hour", n)
				}
				good = true
				advance(21 * time.Minute)
				if bad := to.missing(all); len(bad) > 0 {
					t.Errorf("of %d events %d: %q", len(all), len(bad), first(bad))
				}
				if total(t, s.m.dropped) != 0 || box.waiting("e0") != 0 || len(s.Status()) != 0 {
					t.Errorf("%v dropped, status %+v", total(t, s.m.dropped), s.Status())
				}
				stop()
			})
		})
	}
}

// Where the endpoint answers at all, nothing expires that was not sent alone;
// where it does not, age decides.
func TestNothingExpiresUntried(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		alone  bool
	}{
		{"400", 400, true}, {"500", 500, true}, {"503", 503, true}, {"429", 429, true}, {"413", 413, true}, {"hangs", hung, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box := newMemory(endpoints(1)...)
				to := newConsumer(t, func([]string) int { return c.status })
				s, logs, stop := observed(t, Options{RetryMax: time.Hour}, box, to.serve)
				all := box.commit("e0", 100)
				for range 24 {
					advance(time.Hour)
					all = append(all, box.commit("e0", 10)...)
				}
				advance(27 * time.Hour)
				if got := total(t, s.m.dropped); got != float64(len(all)) || box.waiting("e0") != 0 {
					t.Errorf("%v of %d dropped, %d wait", got, len(all), box.waiting("e0"))
				}
				if c.alone {
					for _, id := range all {
						if to.alone[id] == 0 {
							t.Fatalf("%s was never sent alone", id)
						}
					}
				}
				if n := logs.FilterMessage("webhook events dropped").Len(); n == 0 || n > 200 {
					t.Errorf("%d log lines tell of lost events", n)
				}
				stop()
			})
		})
	}
}

// A consumer that refuses for most of a day and then only dislikes one event
// gets all others, though their time is nearly over.
func TestGoodEventsOfABadDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := newMemory(endpoints(1)...)
		all := box.commit("e0", 200)
		poison := all[100:103]
		to := newConsumer(t, func([]string) int { return 503 })
		s, _, stop := observed(t, Options{}, box, to.serve)
		advance(23*time.Hour + 55*time.Minute)
		to.answer = refuses(500, poison)
		advance(30 * time.Minute)
		if bad := to.missing(without(all, poison)); len(bad) > 0 || total(t, s.m.dropped) != 3 {
			t.Errorf("%v dropped; %d: %q", total(t, s.m.dropped), len(bad), first(bad))
		}
		stop()
	})
}

// A consumer that fails now and then, without a reason, gets everything.
func TestFlakyConsumer(t *testing.T) {
	for _, share := range []float64{.05, .3, .7} {
		t.Run(fmt.Sprint(share), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, theirs := rand.New(rand.NewPCG(2, uint64(100*share))), rand.New(rand.NewPCG(3, uint64(100*share)))
				statuses := []int{400, 500, 502, 503, 429, hung}
				to := newConsumer(t, func([]string) int {
					if theirs.Float64() < share {
						return statuses[theirs.IntN(len(statuses))]
					}
					return 200
				})
				box := newMemory(endpoints(1)...)
				s, _, stop := observed(t, Options{}, box, to.serve)
				var all []string
				for range 200 {
					all = append(all, box.commit("e0", 1+r.IntN(20))...)
					advance(time.Duration(r.IntN(5000)) * time.Millisecond)
				}
				advance(3 * time.Hour)
				if bad := to.missing(all); len(bad) > 0 || total(t, s.m.dropped) != 0 {
					t.Errorf("%v dropped; %d of %d: %q", total(t, s.m.dropped), len(bad), len(all), first(bad))
				}
				stop()
			})
		})
	}
}

// A restart at any point loses nothing: what was found out is found out again.
func TestRestartAmongRefusals(t *testing.T) {
	for _, after := range []int{1, 2, 3, 5, 8, 13, 21, 34} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box := newMemory(endpoints(1)...)
				all := box.commit("e0", 300)
				poison := []string{all[0], all[111], all[112], all[299]}
				to := newConsumer(t, refuses(400, poison))
				for round := range 3 {
					_, _, stop := observed(t, Options{}, box, to.serve)
					for before := to.posted(); to.posted() < before+after && box.waiting("e0") > len(poison); {
						advance(time.Second)
					}
					stop()
					advance(time.Duration(round) * time.Minute)
				}
				s, _, stop := observed(t, Options{}, box, to.serve)
				advance(time.Minute)
				if bad := to.missing(without(all, poison)); len(bad) > 0 || box.waiting("e0") != len(poison) || total(t, s.m.dropped) != 0 {
					t.Errorf("%d wait; %d: %q", box.waiting("e0"), len(bad), first(bad))
				}
				stop()
			})
		})
	}
}

// Fresh events are not held up by many that are refused slowly.
func TestSlowRefusalsShareTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := newMemory(endpoints(1)...)
		all := box.commit("e0", 200)
		poison := all[:100]
		answer := refuses(400, poison)
		to := newConsumer(t, answer)
		_, stop := inFalseTime(t, Options{}, box, func(r *http.Request, body []byte) (int, error) {
			status, err := to.serve(r, body)
			if status == 400 {
				turns.Unlock() // the test goes on meanwhile
				time.Sleep(20 * time.Second)
				turns.Lock()
			}
			return status, err
		})
		advance(20 * time.Minute)
		for range 20 {
			start := time.Now()
			later := box.commit("e0", 1)
			advance(10 * time.Minute)
			if bad := to.missing(later); len(bad) > 0 {
				t.Fatalf("%q after ten minutes", bad)
			}
			if took := to.at[later[0]].Sub(start); took > time.Minute {
				t.Errorf("a fresh event took %v", took)
			}
		}
		stop()
	})
}

// A real consumer that refuses one event, each in its own way: the others
// arrive, signed and with the ids they had.
func TestConsumerRefusesOneEvent(t *testing.T) {
	for _, c := range []struct {
		name   string
		refuse func(w http.ResponseWriter, r *http.Request)
	}{
		{"400", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400) }},
		{"500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }},
		{"redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }},
		{"dies", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{"hangs", func(_ http.ResponseWriter, r *http.Request) { hang(r) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var poison atomic.Value // its id
			poison.Store("")
			rec := receive(t, nil)
			answers := rec.Config.Handler
			rec.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err == nil && slices.Contains(idsOf(t, body), poison.Load().(string)) {
					c.refuse(w, r)
					return
				}
				r.Body = io.NopCloser(bytes.NewReader(body))
				answers.ServeHTTP(w, r)
			})
			e := rec.endpoint("e")
			e.SigningKey, _ = NewSigningKey()
			box := newMemory(e)
			all := box.commit("e", 40)
			poison.Store(all[17])
			o := quick(rec)
			if c.name == "hangs" {
				o.RequestTimeout = 200 * time.Millisecond
			}
			s, stop := running(t, o, box)
			box.waitFor(t, "e", 1)
			all = append(all, box.commit("e", 3)...) // past the one that waits
			box.waitFor(t, "e", 1)
			poison.Store("") // mended
			box.drained(t, "e")
			stop()
			got := make(map[string]int)
			for len(got) < len(all) {
				p := rec.next(t)
				if p.header.Get(SignatureHeader) == "" {
					t.Error("not signed")
				}
				for _, id := range p.ids {
					got[id]++
				}
			}
			for _, id := range all {
				// What was answered after the timeout is sent again.
				if got[id] == 0 || got[id] > 1 && c.name != "hangs" {
					t.Errorf("%s came %d times", id, got[id])
				}
			}
			if n := total(t, s.m.setAside); n < 1 || n > 1 && c.name != "hangs" {
				t.Errorf("%v events set aside", n)
			}
		})
	}
}
