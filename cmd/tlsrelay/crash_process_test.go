package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"tlsrelay/configs"
)

// process is a relay in a process of its own: this test binary, run again.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	ready chan struct{} // closed by the log line that says so
	ended chan struct{} // closed when the process is gone and its log is read

	// Where it listens; there once ready is closed.
	submission, api, admin string

	mu     sync.Mutex
	log    bytes.Buffer
	stdout string // file
}

// configFile writes a configuration as an operator would have it.
func configFile(t testing.TB, c configs.Config) string {
	t.Helper()
	text, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "tlsrelay.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// startProcess runs `tlsrelay serve --config file`. Variables of the
// environment that the relay reads are only those given.
func startProcess(t testing.TB, file string, env ...string) *process {
	t.Helper()
	p := &process{t: t, ready: make(chan struct{}), ended: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0], "serve", "--config", file)
	p.cmd.Env = append([]string{"TLSRELAY_TEST_RUN_MAIN=1", "TMPDIR=" + os.TempDir(), "GORACE=atexit_sleep_ms=0"}, env...)
	p.stdout = filepath.Join(t.TempDir(), "stdout")
	stdout, err := os.Create(p.stdout)
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close() // the process has its own
	p.cmd.Stdout = stdout
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.read(stderr)
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.ended
		if log := p.logged(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic:") {
			t.Errorf("the relay's log:\n%s", log)
		}
	})
	return p
}

// read follows the log to its end.
func (p *process) read(stderr io.Reader) {
	defer close(p.ended)
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		p.mu.Lock()
		p.log.Write(append(lines.Bytes(), '\n'))
		p.mu.Unlock()
		var line struct {
			Msg, API, Admin string
			Submission      []string
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "ready" && p.submission == "" {
			p.submission, p.api, p.admin = line.Submission[0], line.API, line.Admin
			close(p.ready)
		}
	}
	p.cmd.Wait() // its error is in cmd.ProcessState
}

func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// printed is what the relay wrote to its standard output so far.
func (p *process) printed() string {
	p.t.Helper()
	text, err := os.ReadFile(p.stdout)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

// up waits until the relay says that it is ready.
func (p *process) up() *process {
	p.t.Helper()
	select {
	case <-p.ready:
	case <-p.ended:
		p.t.Fatalf("the relay ended instead of starting: %v\n%s", p.cmd.ProcessState, p.logged())
	case <-time.After(time.Minute):
		p.t.Fatalf("the relay does not get ready\n%s", p.logged())
	}
	return p
}

// signal sends a signal and waits for the end.
func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	p.cmd.Process.Signal(s)
	p.wait()
}

// wait waits for the end and gives the exit code, -1 after a signal.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(2 * time.Minute):
		p.t.Fatalf("the relay does not end\n%s", p.logged())
	}
	return p.cmd.ProcessState.ExitCode()
}

// eventually waits for a condition of the world outside, which nobody signals.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("waited for a minute, but not: %s", what)
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// getJSON asks the operator's listener of a process, or any other.
func getJSON(t testing.TB, url string, into any) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(into); err != nil || res.StatusCode != 200 {
		t.Fatalf("GET %s: %s, %v", url, res.Status, err)
	}
}
