//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tlsrelay/policy/account"
)

// subject is the program under measurement.
type subject interface {
	name() string
	submission() (addr, secret string)
	cpu() time.Duration
	resetPeak()
	peak() int64 // bytes
	// syncs counts syncs so far, and says how; "" when it cannot.
	syncs() (n float64, how string)
	stop() error
}

// relayProcess is bin/tlsrelay under measurement.
type relayProcess struct {
	dir    string
	secret string
	cmd    *exec.Cmd
	ended  chan error
	smtp   string
	api    string
	admin  string
}

// relaySetup is what a measurement changes of the defaults.
type relaySetup struct {
	program string
	dir     string // keeps data, configuration and log; an old one continues
	world   worldAddr
	secret  string
}

// configuration leaves everything at its default but what ties the relay to
// this world.
const configuration = `
hostname: relay.example
data_dir: %q
submission:
  listen: ["127.0.0.1:0"]
  allow_plaintext_auth: true
api: {listen: "127.0.0.1:0"}
admin: {listen: "127.0.0.1:0"}
delivery:
  port: %d
  resolver: %q
  root_ca_file: %q
  allow_private_addresses: true
`

// startLimit is how long the relay may take to be ready, a big backlog included.
const startLimit = 2 * time.Minute

func startRelay(ctx context.Context, s relaySetup) (r *relayProcess, err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	file := func(name string) string { return filepath.Join(s.dir, name) }
	text := fmt.Sprintf(configuration, file("data"), s.world.Port, s.world.DNS, file("ca.pem"))
	err = errors.Join(os.WriteFile(file("ca.pem"), s.world.CA, 0o600), os.WriteFile(file("config.yaml"), []byte(text), 0o600))
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(file("log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	r = &relayProcess{dir: s.dir, secret: s.secret, ended: make(chan error, 1)}
	if r.secret == "" {
		r.secret = account.NewSecret()
	}
	r.cmd = exec.Command(s.program, "serve", "--config", file("config.yaml"))
	r.cmd.Stdout, r.cmd.Stderr = log, log
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "TLSRELAY_") {
			r.cmd.Env = append(r.cmd.Env, v)
		}
	}
	r.cmd.Env = append(r.cmd.Env, "TLSRELAY_BOOTSTRAP_KEY="+r.secret)
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { r.ended <- r.cmd.Wait() }()
	if err := r.await(ctx, file("log")); err != nil {
		return nil, errors.Join(err, r.stop())
	}
	return r, nil
}

// await waits for the line of the log that says where the relay listens.
func (r *relayProcess) await(ctx context.Context, log string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		text, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		if r.ready(text) {
			return nil
		}
		select {
		case err := <-r.ended:
			r.ended <- err
			return fmt.Errorf("the relay ended (%v): %s", err, bytes.TrimSpace(text))
		case <-ctx.Done():
			return fmt.Errorf("the relay does not become ready: %w: %s", ctx.Err(), bytes.TrimSpace(text))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (r *relayProcess) ready(log []byte) bool {
	for line := range bytes.Lines(log) {
		var l struct {
			Msg        string
			Submission []string
			API        string
			Admin      string
		}
		if json.Unmarshal(line, &l) == nil && l.Msg == "ready" && len(l.Submission) > 0 {
			r.smtp, r.api, r.admin = l.Submission[0], l.API, l.Admin
			return true
		}
	}
	return false
}

// demand sets the account's policy, as its owner would.
func (r *relayProcess) demand(ctx context.Context) error {
	const settings = `{"require_tls": true, "require_valid_cert": true, "version": 1.2}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, "http://"+r.api+"/v3/user/settings/enforced_tls", strings.NewReader(settings))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+r.secret)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("setting the policy: %s", res.Status)
	}
	return nil
}

func (r *relayProcess) pid() int                     { return r.cmd.Process.Pid }
func (r *relayProcess) name() string                 { return "tlsrelay" }
func (r *relayProcess) submission() (string, string) { return r.smtp, r.secret }
func (r *relayProcess) cpu() time.Duration           { return cpu(r.pid()) }
func (r *relayProcess) resetPeak()                   { resetPeak(r.pid()) }
func (r *relayProcess) peak() int64                  { return memory(r.pid(), "status", "VmHWM") }
func (r *relayProcess) resident() int64              { return memory(r.pid(), "status", "VmRSS") }

// stopLimit is how long a subject may take to finish what has begun: the
// relay lets submissions and then deliveries go on for half a minute each.
const stopLimit = 75 * time.Second

// stop ends the relay. One that does not end has to say what it is doing.
func (r *relayProcess) stop() error {
	r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-r.ended:
		if err != nil {
			return fmt.Errorf("the relay ended badly: %w", err)
		}
		return nil
	case <-time.After(stopLimit):
	}
	r.cmd.Process.Signal(syscall.SIGQUIT) // the Go runtime writes all stacks to the log
	timer := time.AfterFunc(stopLimit, func() { r.cmd.Process.Kill() })
	defer timer.Stop()
	<-r.ended
	kept := filepath.Join(os.TempDir(), "benchrelay-stuck.log")
	text, err := os.ReadFile(filepath.Join(r.dir, "log"))
	if err == nil {
		err = os.WriteFile(kept, text, 0o600)
	}
	return errors.Join(fmt.Errorf("the relay did not stop within %v; its log, with all stacks, is %s", stopLimit, kept), err)
}

// syncMetrics are the names under which the relay may count its syncs.
var syncMetrics = []string{"tlsrelay_store_syncs_total", "tlsrelay_store_wal_syncs_total"}

func (r *relayProcess) syncs() (float64, string) {
	all := r.metrics()
	for _, name := range syncMetrics {
		if v, ok := all[name]; ok {
			return v, name
		}
	}
	if n, ok := deviceFlushes(r.dir); ok {
		return n, "flushes of the disk"
	}
	return 0, ""
}

// metrics gives the samples without labels of the relay's metrics.
func (r *relayProcess) metrics() map[string]float64 {
	res, err := http.Get("http://" + r.admin + "/metrics")
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	all := map[string]float64{}
	for sc := bufio.NewScanner(res.Body); sc.Scan(); {
		if name, value, ok := strings.Cut(sc.Text(), " "); ok {
			if v, err := strconv.ParseFloat(value, 64); err == nil {
				all[name] = v
			}
		}
	}
	return all
}

// profile saves a CPU profile over d.
func (r *relayProcess) profile(d time.Duration, to string) error {
	res, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", r.admin, max(1, int(d/time.Second))))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %s", res.Status)
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, res.Body)
	return errors.Join(err, f.Close())
}
