//go:build linux

package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/rpc"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// floor runs n messages from a generator straight to the hosts of w.
func floor(t *testing.T, w WorldSpec, s OpenSpec, n int) (RunResult, ArrivalStats) {
	t.Helper()
	sk, g := newSink(), &generator{}
	world, err := sk.build(w)
	if err != nil {
		t.Fatal(err)
	}
	s.Addr = world.Hosts[0]
	if err := g.open(s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range g.clients {
			c.conn.Close()
		}
	})
	const base = 1000
	sk.reset(base)
	sent, err := g.run(RunSpec{Base: base, Count: n})
	if err != nil {
		t.Fatal(err)
	}
	if got := sk.wait(WaitSpec{sent.Taken, 10 * time.Second}); got != n {
		t.Fatalf("%d of %d messages arrived", got, n)
	}
	return sent, sk.stats()
}

func TestFloor(t *testing.T) {
	for _, c := range []struct {
		name  string
		tls   bool
		delay time.Duration
	}{
		{"plain", false, 0}, {"starttls", true, 0}, {"late answers", true, time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			const n, size = 40, 10 * kib
			sent, got := floor(t,
				WorldSpec{Hosts: []HostSpec{{TLS: c.tls, Delay: c.delay, Domains: []string{"one.example"}}}},
				OpenSpec{TLS: c.tls, Connections: 3, Size: size, Domains: []string{"one.example"}}, n)
			var r row
			r.count(sent, got)
			if r.Messages != n || r.Lost+r.Duplicates > 0 {
				t.Errorf("%+v", r)
			}
			if got.Octets != n*size {
				t.Errorf("%d octets arrived, not %d", got.Octets, n*size)
			}
		})
	}
}

func TestCountTellsLossAndLatency(t *testing.T) {
	ms := int64(time.Millisecond)
	sent := RunResult{Start: 0, End: 3 * ms, Accepted: []int64{1 * ms, 2 * ms, 0, 3 * ms}, Taken: 3}
	var r row
	r.count(sent, ArrivalStats{Arrivals: []int64{2 * ms, 0, 0, 10 * ms}, Duplicates: 1})
	if r.Messages != 2 || r.Lost != 1 || r.Duplicates != 1 || r.P99 != 7 || r.P50 != 1 || r.Seconds != 0.01 {
		t.Errorf("%+v", r)
	}
}

func TestPercentile(t *testing.T) {
	v := make([]float64, 200)
	for i := range v {
		v[i] = float64(200 - i)
	}
	for p, want := range map[int]float64{50: 100, 99: 198, 100: 200} {
		if got := percentile(v, p); got != want {
			t.Errorf("p%d is %v, not %v", p, got, want)
		}
	}
	if percentile(nil, 99) != 0 {
		t.Error("a percentile of nothing")
	}
}

// The end of the content is found however the octets fall into packets.
func TestReadData(t *testing.T) {
	for _, text := range []string{".\r\n", "a\r\n.\r\n", "\r\n..\r\n.x\r\n\r\n.\r\n", strings.Repeat("line\r\n", 20000) + ".\r\n"} {
		for _, r := range []io.Reader{strings.NewReader(text + "QUIT\r\n"), iotest.OneByteReader(strings.NewReader(text + "QUIT\r\n"))} {
			c := &conversation{receiver: &receiver{sink: newSink()}, br: bufio.NewReaderSize(r, receiveBuffer)}
			if err := c.readData(); err != nil {
				t.Fatal(err)
			}
			if rest, _ := io.ReadAll(c.br); string(rest) != "QUIT\r\n" {
				t.Errorf("%.20q: left %.20q", text, rest)
			}
			if got := c.sink.octets.Load(); got != int64(len(text)-3) {
				t.Errorf("%.20q: counted %d octets", text, got)
			}
		}
	}
}

// Late answers are late by the delay, however many there are at a time.
func TestDelayLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		begun := time.Now()
		l := newDelayLine(20*time.Millisecond, &out)
		for range 5 {
			io.WriteString(l, "x")
			time.Sleep(time.Millisecond)
		}
		l.close()
		if took := time.Since(begun); took != 24*time.Millisecond || out.String() != "xxxxx" {
			t.Errorf("%q after %v", out.String(), took)
		}
	})
}

// A paced run offers what it says, whatever the number of connections.
func TestPacer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pacer{RunSpec: RunSpec{Rate: 100, Duration: time.Second}, start: time.Now()}
		n := 0
		for _, more := p.token(); more; _, more = p.token() {
			n++
		}
		if n != 100 {
			t.Errorf("%d messages in a second at 100 a second", n)
		}
	})
}

// A child does what it is asked, says what it cannot do, and ends with its parent.
func TestServeChild(t *testing.T) {
	ours, theirs := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- serveChild(theirs, &generator{}) }()
	c := &child{role: "generate", conn: rpc.NewClient(ours)}
	if err := c.ask("Open", OpenSpec{}, nil); err != nil {
		t.Error(err)
	}
	if err := c.ask("Run", RunSpec{}, &RunResult{}); err == nil || !strings.Contains(err.Error(), "without end") {
		t.Errorf("a run without end: %v", err)
	}
	if err := c.ask("Dance", 0, nil); err == nil {
		t.Error("it dances")
	}
	c.conn.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestMessageSize(t *testing.T) {
	for _, size := range []int{kib, 10 * kib, 10*kib + 1, 100 * kib} {
		m := message(size)
		if len(m) != size+3 || !bytes.HasSuffix(m, []byte("\r\n.\r\n")) {
			t.Errorf("%d: %d octets, ends %q", size, len(m), m[len(m)-6:])
		}
	}
}

func TestCPUOfThisProcess(t *testing.T) {
	before := cpuOfTree(os.Getpid())
	for end := time.Now().Add(10 * time.Second); cpuOfTree(os.Getpid()) == before; {
		if time.Now().After(end) {
			t.Fatal("the clock of the CPU stands still")
		}
	}
	if peak, now := memory(os.Getpid()); peak == 0 || now == 0 || share(os.Getpid()) == 0 {
		t.Errorf("memory: peak %d, now %d", peak, now)
	}
	if cpu(os.Getpid()) == 0 {
		t.Error("no CPU time")
	}
}

func TestTarpitAndDeadHost(t *testing.T) {
	sk := newSink()
	w, err := sk.build(WorldSpec{Hosts: []HostSpec{{Pit: pitSilent}, {Domains: []string{"dead.example"}, Dead: true}}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", w.Hosts[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == io.EOF {
		t.Errorf("a tarpit let go: %d, %v", n, err)
	}
	if _, err := net.Dial("tcp", w.Hosts[1]); err == nil {
		t.Error("the dead host took a connection")
	}
}
