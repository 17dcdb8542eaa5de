//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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
	world   WorldAddr
	secret  string
}

// configuration leaves everything at its default but what ties the relay to
// this world.
const configuration = `
hostname: relay.example
data_dir: %q
submission:
  listen: [%q]
  allow_plaintext_auth: true
api: {listen: %q}
admin: {listen: %q}
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
	r = &relayProcess{dir: s.dir, secret: s.secret, ended: make(chan error, 1)}
	for _, addr := range []*string{&r.smtp, &r.api, &r.admin} {
		if *addr, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	text := fmt.Sprintf(configuration, file("data"), r.smtp, r.api, r.admin, s.world.Port, s.world.DNS, file("ca.pem"))
	err = errors.Join(os.WriteFile(file("ca.pem"), s.world.CA, 0o600), os.WriteFile(file("config.yaml"), []byte(text), 0o600))
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(file("log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
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
	if err := await(ctx, r.ended, file("log"), r.ready); err != nil {
		return nil, errors.Join(err, r.stop())
	}
	return r, nil
}

// ready reports whether the relay takes mail.
func (r *relayProcess) ready() bool {
	res, err := http.Get("http://" + r.admin + "/readyz")
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// freeAddress gives a loopback address at which nobody listens.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// await waits until a subject is ready. When it ends before that, or takes too long,
// the error has its log.
func await(ctx context.Context, ended chan error, log string, ready func() bool) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for !ready() {
		select {
		case err = <-ended:
			ended <- err
			err = fmt.Errorf("it ended: %v", err)
		case <-ctx.Done():
			err = fmt.Errorf("it does not become ready: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
			continue
		}
		text, _ := os.ReadFile(log)
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(text))
	}
	return nil
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

func (r *relayProcess) peak() int64 {
	peak, _ := memory(r.pid())
	return peak
}

func (r *relayProcess) resident() int64 {
	_, now := memory(r.pid())
	return now
}

// stopLimit is how long a subject may take to finish what has begun: the
// relay lets submissions and then deliveries go on for half a minute each.
const stopLimit = 75 * time.Second

// stop ends the relay. One that does not end says in its log what it is doing.
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
	text, _ := os.ReadFile(filepath.Join(r.dir, "log"))
	return fmt.Errorf("the relay did not stop within %v: %s", stopLimit, text)
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
