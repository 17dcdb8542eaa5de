package queue

import (
	"container/heap"
	"time"
)

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
