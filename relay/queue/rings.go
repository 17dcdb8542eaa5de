package queue

import (
	"container/heap"
	"time"
)

// fifo is a queue on a slice; the zero fifo is empty.
type fifo[T any] struct {
	items []T
	head  int
}

func (f *fifo[T]) len() int { return len(f.items) - f.head }

func (f *fifo[T]) push(x T) { f.items = append(f.items, x) }

// pop takes the first item; the fifo must have one.
func (f *fifo[T]) pop() T {
	var zero T
	x := f.items[f.head]
	f.items[f.head] = zero
	f.head++
	switch {
	case f.head == len(f.items):
		f.items, f.head = f.items[:0], 0
		if cap(f.items) > 64 {
			f.items = nil // a burst is over
		}
	case f.head > 32 && f.head > len(f.items)/2:
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	return x
}

// rings are lanes waiting for their turn to begin an attempt, one ring per rank. A
// lane stands at most once in each; one that has changed meanwhile is skipped when
// its turn comes.
type rings struct {
	ring [ranks]fifo[*lane]
	last rank // whose turn it was
}

// add puts l into ring r. in is the lane's mark of where it stands in these
// rings, one bit per rank.
func (rs *rings) add(l *lane, r rank, in *uint8) {
	if *in&(1<<r) == 0 {
		*in |= 1 << r
		rs.ring[r].push(l)
	}
}

// next takes the lane whose turn it is: the ranks take turns, as do the lanes
// within each. permitted is asked once per rank, fits for each lane.
func (rs *rings) next(permitted func(rank) bool, fits func(*lane, rank) bool) *lane {
	for i := range ranks {
		r := (rs.last + 1 + i) % ranks
		if rs.ring[r].len() == 0 || !permitted(r) {
			continue
		}
		for rs.ring[r].len() > 0 {
			if l := rs.ring[r].pop(); fits(l, r) {
				rs.last = r
				return l
			}
		}
	}
	return nil
}

// front shows the first item; the fifo must have one.
func (f *fifo[T]) front() T { return f.items[f.head] }

// alarm is a time to wake at; the zero alarm is off.
type alarm struct {
	at    time.Time
	index int // in the heap, from 1; 0: off
	fire  func(now time.Time)
}

// alarms is a heap of them, the earliest first.
type alarms []*alarm

func (h alarms) Len() int           { return len(h) }
func (h alarms) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h alarms) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

// Push implements heap.Interface.
func (h *alarms) Push(x any) {
	a := x.(*alarm)
	a.index = len(*h) + 1
	*h = append(*h, a)
}

// Pop implements heap.Interface.
func (h *alarms) Pop() any {
	old := *h
	a := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	a.index = 0
	return a
}

// set turns a on for at, or moves it there.
func (h *alarms) set(a *alarm, at time.Time) {
	switch {
	case a.index == 0:
		a.at = at
		heap.Push(h, a)
	case !a.at.Equal(at):
		a.at = at
		heap.Fix(h, a.index-1)
	}
}

// off turns a off.
func (h *alarms) off(a *alarm) {
	if a.index != 0 {
		heap.Remove(h, a.index-1)
	}
}

// due takes one alarm that is due at now.
func (h *alarms) due(now time.Time) (*alarm, bool) {
	if len(*h) == 0 || (*h)[0].at.After(now) {
		return nil, false
	}
	return heap.Pop(h).(*alarm), true
}
