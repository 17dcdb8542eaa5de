package webhook

import (
	"bytes"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// advance lets d pass and everything that is due then happen.
func advance(d time.Duration) {
	// What the test did so far comes before what the transport does next.
	turns.Lock()
	//lint:ignore SA2001 the lock is taken for its order alone
	turns.Unlock()
	time.Sleep(d)
	synctest.Wait()
}

// The delays double from retry_after to retry_max, and what an endpoint that
// cannot be reached was not sent in 24 hours is dropped; what came later is not.
func TestBackoffAndExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries []time.Time
		var last []byte
		box := newMemory(endpoints(1)...)
		s, stop := inFalseTime(t, Options{}, box, func(_ *http.Request, body []byte) (int, error) {
			tries = append(tries, time.Now())
			last = body
			return 0, errors.New("connection refused")
		})
		start := time.Now()
		box.commit("e0", 3)
		advance(20 * time.Hour)
		box.commit("e0", 1)
		advance(4*time.Hour + 11*time.Minute)

		if got := tries[0].Sub(start); got != time.Second {
			t.Errorf("first try after %v", got)
		}
		want := 2 * time.Second
		for i := range 30 {
			if got := tries[i+1].Sub(tries[i]); got != want {
				t.Errorf("delay %d: %v, want %v", i+1, got, want)
			}
			want = min(2*want, 10*time.Minute)
		}
		if n := total(t, s.m.dropped); n != 3 {
			t.Errorf("%v events dropped", n)
		}
		if n := len(idsOf(t, last)); n != 1 || box.waiting("e0") != 1 {
			t.Errorf("%d events in the last batch, %d wait", n, box.waiting("e0"))
		}
		st := s.Status()
		if len(st) != 1 || st[0].LastError != ClassConnect || st[0].Failures < 30 || !st[0].NextTry.After(time.Now()) {
			t.Errorf("status %+v", st)
		}
		if got := total(t, s.m.posts.WithLabelValues("connect")); got != float64(len(tries)) {
			t.Errorf("%v failures counted of %d", got, len(tries))
		}
		advance(24 * time.Hour)
		if len(s.Status()) != 0 || box.waiting("e0") != 0 || total(t, s.m.dropped) != 4 {
			t.Errorf("not over: %+v", s.Status())
		}
		stop()
	})
}

// The relay was down for days: what waits is tried before it is given up, and
// a consumer that comes back a little later than the relay loses nothing.
func TestLateEventsAreTried(t *testing.T) {
	for _, c := range []struct {
		name    string
		answer  func(n int) (int, error)
		posts   int // 0: any number
		dropped float64
	}{
		{"taken", func(int) (int, error) { return 200, nil }, 1, 0},
		{"refused", func(int) (int, error) { return 500, nil }, 3, 2}, // together, then each alone
		{"not now", func(int) (int, error) { return 503, nil }, 3, 2},
		{"out of reach", func(int) (int, error) { return 0, errors.New("connection refused") }, 0, 2},
		{"back soon", func(n int) (int, error) {
			if n < 5 {
				return 0, errors.New("connection refused")
			}
			return 200, nil
		}, 6, 0}, // each alone, until one is taken
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				box := newMemory(endpoints(1)...)
				box.commit("e0", 2)
				advance(72 * time.Hour)
				s, stop := inFalseTime(t, Options{}, box, func(*http.Request, []byte) (int, error) {
					n++
					return c.answer(n)
				})
				advance(time.Hour)
				if c.posts != 0 && n != c.posts || n == 0 || box.waiting("e0") != 0 {
					t.Errorf("%d tries, %d wait", n, box.waiting("e0"))
				}
				if dropped := total(t, s.m.dropped); dropped != c.dropped {
					t.Errorf("%v dropped", dropped)
				}
				stop()
			})
		})
	}
}

// A batch goes when its oldest event is flush_interval old, or when it is
// flush_bytes big.
func TestBatching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type batch struct {
			after time.Duration
			n     int
		}
		var got []batch
		start := time.Now()
		box := newMemory(endpoints(1)...)
		_, stop := inFalseTime(t, Options{FlushInterval: 8 * time.Second, FlushBytes: 10_000}, box, func(_ *http.Request, body []byte) (int, error) {
			if len(body) > 10_000+200 {
				t.Errorf("%d bytes", len(body))
			}
			got = append(got, batch{time.Since(start), len(idsOf(t, body))})
			return 200, nil
		})
		box.commit("e0", 2)
		advance(4 * time.Second)
		box.commit("e0", 2)
		advance(16 * time.Second)
		if want := []batch{{8 * time.Second, 4}}; !slices.Equal(got, want) {
			t.Errorf("by age: %v, want %v", got, want)
		}
		got, start = nil, time.Now()
		sum := 0
		for range 10 {
			box.commit("e0", 10) // a tenth of a second apart: full long before 8 s
			advance(100 * time.Millisecond)
		}
		advance(time.Second)
		if len(got) == 0 || got[0].after > 2*time.Second || got[0].n < 20 {
			t.Errorf("by size: %v", got)
		}
		advance(10 * time.Second)
		for _, b := range got {
			sum += b.n
		}
		if sum != 100 {
			t.Errorf("%d of 100 events: %v", sum, got)
		}
		stop()
	})
}

func TestFreshTimestampPerTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		es := endpoints(1)
		es[0].SigningKey, _ = NewSigningKey()
		box := newMemory(es...)
		var bodies [][]byte
		var stamps []string
		_, stop := inFalseTime(t, Options{}, box, func(r *http.Request, body []byte) (int, error) {
			stamp := r.Header.Get(TimestampHeader)
			if stamp != strconv.FormatInt(time.Now().Unix(), 10) {
				t.Errorf("timestamp %s at %d", stamp, time.Now().Unix())
			}
			stamps = append(stamps, stamp)
			bodies = append(bodies, body)
			if len(bodies) < 3 {
				return 0, errors.New("connection refused")
			}
			return 200, nil
		})
		box.commit("e0", 2)
		advance(time.Minute)
		if len(bodies) != 3 || !bytes.Equal(bodies[0], bodies[2]) || stamps[0] == stamps[2] {
			t.Errorf("stamps %v, bodies %s", stamps, bodies)
		}
		stop()
	})
}

// What is changed about an endpoint acts while its events wait.
func TestChangesWhileWaiting(t *testing.T) {
	const backedOff = 30 * time.Minute // long enough for delays of 10 minutes
	for _, c := range []struct {
		name    string
		change  func(box *memory, e Endpoint)
		tries   int     // within a poll interval of the change
		waiting int     // then
		dropped float64 // then
	}{
		{"nothing", func(*memory, Endpoint) {}, 0, 2, 0},
		{"name", func(box *memory, e Endpoint) { e.FriendlyName = "x"; box.put(e) }, 0, 2, 0},
		{"url", func(box *memory, e Endpoint) { e.URL = "https://good.example.com/"; box.put(e) }, 1, 0, 0},
		{"deleted", func(box *memory, e Endpoint) { box.delete(e.ID) }, 0, 0, 2},
		{"disabled", func(box *memory, e Endpoint) { e.Enabled = false; box.put(e) }, 0, 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				box := newMemory(endpoints(1)...)
				s, stop := inFalseTime(t, Options{}, box, func(r *http.Request, _ []byte) (int, error) {
					tries++
					if r.URL.Host == "good.example.com" {
						return 200, nil
					}
					return 503, nil
				})
				box.commit("e0", 2)
				// The tries are a second after the commit, 2 s later, 4 s, …;
				// stop well between two of them.
				advance(backedOff)
				for before := tries; tries == before; {
					advance(time.Second)
				}
				advance(time.Minute)
				tries = 0
				c.change(box, endpoints(1)[0])
				advance(15 * time.Second)
				if tries != c.tries || box.waiting("e0") != c.waiting || total(t, s.m.dropped) != c.dropped {
					t.Errorf("%d tries, %d wait, %v dropped", tries, box.waiting("e0"), total(t, s.m.dropped))
				}
				stop()
			})
		})
	}
}

// A disabled endpoint hears nothing; enabled within the day, it hears all.
func TestDisabledEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		es := endpoints(2)
		es[0].Enabled, es[1].Enabled = false, false
		box := newMemory(es...)
		var hosts []string
		s, stop := inFalseTime(t, Options{}, box, func(r *http.Request, _ []byte) (int, error) {
			hosts = append(hosts, r.URL.Host)
			return 200, nil
		})
		box.commit("e0", 1)
		box.commit("e1", 1)
		advance(23 * time.Hour)
		if len(hosts) != 0 {
			t.Fatalf("posted to %v", hosts)
		}
		if st := s.Status(); len(st) != 2 || !st[0].Off || s.lag() != 0 {
			t.Errorf("status %+v, lag %v", st, s.lag())
		}
		es[0].Enabled = true
		box.put(es[0])
		advance(2 * time.Hour)
		if want := []string{"e0.example.com"}; !slices.Equal(hosts, want) || box.waiting("e1") != 0 {
			t.Errorf("posted to %v, %d wait for the other", hosts, box.waiting("e1"))
		}
		stop()
	})
}

// Endpoints that use up their whole time, and more of them than there are
// slots, leave half of the slots to the others.
func TestSlotsForTheQuick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		es := endpoints(12)
		box := newMemory(es...)
		s := New(Options{MaxPosts: 4}, box, zap.NewNop(), nil)
		s.client.Transport = hangs{except: "e0.example.com"}
		_, stop := run(t, s)
		for _, e := range es[1:] {
			box.commit(e.ID, 1)
		}
		advance(10 * time.Minute) // every one of them has been tried
		for range 100 {
			box.commit("e0", 1)
			advance(1100 * time.Millisecond)
			if n := box.waiting("e0"); n != 0 {
				t.Fatalf("%d events wait for a slot", n)
			}
		}
		stop()
	})
}

// hangs is a transport that answers one host only.
type hangs struct{ except string }

func (h hangs) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != h.except {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return &http.Response{StatusCode: 200, Body: http.NoBody, Request: r, Header: http.Header{}}, nil
}

// A loop that was woken after its last look does not end.
func TestWokenLoopDoesNotFinish(t *testing.T) {
	s := New(Options{}, newMemory(), zap.NewNop(), nil)
	started := 0
	s.start = func(*loop) { started++ }
	s.wake("e0")
	l := s.loops["e0"]
	if s.finish(l) {
		t.Error("finished with a wake pending")
	}
	<-l.woken
	if !s.finish(l) {
		t.Error("did not finish")
	}
	s.wake("e0")
	s.wake("e0")
	if started != 2 {
		t.Errorf("%d loops started", started)
	}
}

// An event that happened before the clock was set back does not wait until it
// has been reached again.
func TestClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := newMemory(endpoints(1)...)
		n := 0
		_, stop := inFalseTime(t, Options{}, box, func(*http.Request, []byte) (int, error) {
			n++
			return 200, nil
		})
		advance(time.Minute)
		box.edit(func() { box.ahead = time.Hour })
		box.commit("e0", 1)
		box.edit(func() { box.ahead = 0 })
		advance(3 * time.Second)
		if n != 1 {
			t.Errorf("%d posts", n)
		}
		stop()
	})
}

// Loops end when drained, and begin again.
func TestLoopsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := newMemory(endpoints(50)...)
		n := 0
		s, stop := inFalseTime(t, Options{MaxPosts: 1}, box, func(*http.Request, []byte) (int, error) {
			n++
			return 200, nil
		})
		for range 3 {
			for _, e := range endpoints(50) {
				box.commit(e.ID, 2)
			}
			advance(500 * time.Millisecond)
			if s.lag() != 500*time.Millisecond {
				t.Errorf("lag %v", s.lag())
			}
			advance(time.Minute)
			s.mu.Lock()
			if len(s.loops) != 0 {
				t.Errorf("%d loops run on", len(s.loops))
			}
			s.mu.Unlock()
		}
		if n != 150 {
			t.Errorf("%d posts", n)
		}
		stop()
		box.commit("e0", 1) // nobody listens any more
	})
}
