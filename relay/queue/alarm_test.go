package queue

import (
	"testing"
	"time"
)

func TestAlarmsFireInOrder(t *testing.T) {
	var h alarms
	origin := time.Unix(0, 0)
	as := make([]alarm, 20)
	for i := range as {
		h.set(&as[i], origin.Add(time.Duration((i*7)%20)*time.Second))
	}
	h.off(&as[3])
	h.off(&as[3])
	h.set(&as[0], origin.Add(time.Hour))
	last, n := origin, 0
	for a, ok := h.due(origin.Add(time.Minute)); ok; a, ok = h.due(origin.Add(time.Minute)) {
		if a.at.Before(last) || a == &as[3] || a == &as[0] || a.index != 0 {
			t.Fatalf("alarm at %v after %v", a.at, last)
		}
		last, n = a.at, n+1
	}
	if n != 18 || len(h) != 1 {
		t.Errorf("%d fired, %d left", n, len(h))
	}
}
