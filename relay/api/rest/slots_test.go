package rest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tlsrelay/policy/account"
)

// party is accounts that take slots for calls that never end by themselves.
type party struct {
	t  *testing.T
	s  Slots
	by map[string][]context.Context
	// leave gives back the slot of a context.
	leave map[context.Context]func()
}

func newParty(t *testing.T, perAccount, total int) *party {
	return &party{
		t: t, by: map[string][]context.Context{}, leave: map[context.Context]func(){},
		s: Slots{PerAccount: perAccount, Total: total, Grace: 10 * time.Second, GaveWay: prometheus.NewCounter(prometheus.CounterOpts{Name: "x"})},
	}
}

func (p *party) enter(who string, want error) {
	p.t.Helper()
	ctx, leave, err := p.s.enter(p.t.Context(), account.ID(who))
	if !errors.Is(err, want) {
		p.t.Errorf("%s: %v, want %v", who, err, want)
	}
	if err == nil {
		p.by[who] = append(p.by[who], ctx)
		p.leave[ctx] = leave
	}
}

// gone says which calls of an account were ended, the oldest being 0.
func (p *party) gone(who string) (ended []int) {
	for i, ctx := range p.by[who] {
		if ctx.Err() != nil {
			ended = append(ended, i)
		}
	}
	return ended
}

// Who gets a slot, and who gives way.
func TestSlots(t *testing.T) {
	for name, play := range map[string]func(p *party){
		"an account at its bound": func(p *party) {
			for range 4 {
				p.enter("a", nil)
			}
			p.enter("a", errAccountFull)
			p.enter("b", nil)
			p.leave[p.by["a"][2]]()
			p.enter("a", nil)
			if len(p.gone("b")) > 0 {
				p.t.Error("b gave way")
			}
		},
		"the account with the most gives way, its oldest call": func(p *party) {
			for _, who := range strings.Fields("b a a b a a c c c c") { // all ten
				p.enter(who, nil)
			}
			p.enter("d", nil)
			p.enter("d", nil)
			if got := fmt.Sprint(p.gone("a"), p.gone("b"), p.gone("c"), p.gone("d")); got != "[0] [] [0] []" {
				p.t.Error(got)
			}
		},
		"no account takes more than others have": func(p *party) {
			for i := range 5 {
				p.enter(fmt.Sprint(i), nil)
				p.enter(fmt.Sprint(i), nil)
			}
			p.enter("a", nil)        // now 0 has one
			p.enter("a", errAllFull) // it would be the second, and nobody has three
		},
		"many accounts with one call each": func(p *party) {
			for i := range 10 {
				p.enter(fmt.Sprint(i), nil)
			}
			p.enter("a", errAllFull)
			time.Sleep(10 * time.Second)
			p.enter("a", nil)
			p.enter("b", nil)
			if got := fmt.Sprint(p.gone("0"), p.gone("1"), p.gone("2"), p.gone("a")); got != "[0] [0] [] []" {
				p.t.Error(got)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newParty(t, 4, 10)
				play(p)
				if n := p.s.Len(); n > 10 {
					t.Errorf("%d calls are under way", n)
				}
				for _, leave := range p.leave {
					leave()
				}
				if n := p.s.Len(); n != 0 {
					t.Errorf("%d slots are not given back", n)
				}
			})
		})
	}
}
