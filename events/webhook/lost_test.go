package webhook

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// Events that the outbox gave up are counted at once, and told of once a minute for
// each account, all of them in the end.
func TestShedIsCountedAndTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		box := newMemory()
		s := New(Options{}, box, zap.New(core), nil)
		_, stop := run(t, s)
		synctest.Wait()
		told := func(want ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for _, l := range logs.TakeAll() {
				f := l.ContextMap()
				if l.Message != "webhook events dropped" || f["why"] != dropOverflow {
					t.Errorf("%s %v", l.Message, f)
				}
				got = append(got, f["account"].(string)+" "+fmt.Sprint(f["events"]))
			}
			if g, w := strings.Join(got, ", "), strings.Join(want, ", "); g != w {
				t.Errorf("told %s, want %s", g, w)
			}
		}
		for range 5 {
			box.shed("1", 10, time.Now())
		}
		box.shed("2", 7, time.Now())
		told("1 10", "2 7")
		if n := total(t, s.m.dropped.WithLabelValues(dropOverflow)); n != 57 {
			t.Errorf("%v are counted", n)
		}
		time.Sleep(50 * time.Second)
		told()
		time.Sleep(20 * time.Second)
		told("1 40")
		time.Sleep(time.Hour)
		told()
		if n := len(s.shed.accounts); n != 0 {
			t.Errorf("%d accounts are remembered", n)
		}
		box.shed("2", 1, time.Now())
		box.shed("2", 1, time.Now())
		told("2 1")
		stop()
		told("2 1")
	})
}
