package main

import (
	"context"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tlsrelay/configs"
)

// A tenant that removes the longest lists of blocks from its own, on as many
// connections as it can, takes a share of the processor and of the memory, and leaves
// the rest to others.
func TestLongListsHoldUpNobody(t *testing.T) {
	const callers, messages = 100, 200
	o := ownIn(t, func(*configs.Config) {})
	bad, good := o.tenant("bad", 0, ""), o.session(o.tenant("good", 0, ""))
	pace := func() (median, slowest time.Duration) {
		took := make([]time.Duration, messages)
		for i := range took {
			begun := time.Now()
			if reply, err := good.send("Subject: other\r\n\r\nx", "b@good.example"); err != nil || !strings.HasPrefix(reply, "250") {
				t.Fatalf("another tenant's message: %q, %v", reply, err)
			}
			took[i] = time.Since(begun)
		}
		slices.Sort(took)
		return took[messages/2], took[messages*99/100]
	}
	quiet, quietest := pace()

	body := `{"emails":["` + strings.Repeat(`","`, 340_000) + `"]}`
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var mu sync.Mutex
	codes := make(map[int]int)
	for range callers {
		all.Go(func() {
			for ctx.Err() == nil {
				req, _ := http.NewRequestWithContext(ctx, "DELETE", "http://"+o.api+"/v3/suppression/blocks", strings.NewReader(body))
				req.Header.Set("Authorization", "Bearer "+bad)
				res, err := client.Do(req)
				if err != nil {
					continue
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				mu.Lock()
				codes[res.StatusCode]++
				mu.Unlock()
			}
		})
	}
	under := func() float64 { return o.metric("tlsrelay_api_requests_total") }
	eventually(t, "the first lists are through", func() bool { return under() > 2 })
	median, slowest := pace()
	stop()
	all.Wait()
	peak := peakMemory(t, o.cmd.Process.Pid) >> 20
	t.Logf("250s in %v, p99 %v; quiet %v, %v; %d MiB at the peak; answers %v", median, slowest, quiet, quietest, peak, codes)
	if slowest > quietest+time.Second {
		t.Error("others wait for it")
	}
	if peak > 400 {
		t.Errorf("%d MiB", peak)
	}
	if codes := slices.Collect(maps.Keys(codes)); slices.Contains(codes, 500) || slices.Contains(codes, 503) {
		t.Errorf("%v", codes)
	}
}
