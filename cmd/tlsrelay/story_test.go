package main

import (
	"bytes"
	"crypto/tls"
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
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/rogpeppe/go-internal/testscript"

	"tlsrelay/configs"
	"tlsrelay/policy/account"
	"tlsrelay/relay/relaytest"
)

// The stories are written for operators: what is configured, who receives
// mail and how, what is sent, what comes of it. The relay is a process of its
// own, and everything goes through what users have: SMTP, the API, webhooks,
// the command line. Beside testscript's own commands there are
//
//	host NAME [TRAIT…]          a receiving host, the next MX of its parent domain
//	mend NAME                   the host is healthy from now on
//	dns RECORD…                 a record, as in a zone file
//	dns-fails NAME              the name servers of a name do not work
//	relay [without-key]         start the relay, with config.yaml if there is one
//	restart, stop               as systemd would; the exit code must be 0
//	tlsrelay ARGUMENT…          the command line; exit CODE asks how it ended
//	api METHOD PATH [BODY]      one call of the public API, with the first key
//	send FROM TO                submit a message; $ID is its queue id
//	event TO KIND [KEY=VALUE…]  the webhook hears of it, before long
//	got NAME COUNT [encrypted|clear]  the host has so many messages, before long
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Values[storyKey{}] = newStory(env)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"host": tell((*story).host), "mend": tell((*story).mend),
			"dns": tell((*story).dns), "dns-fails": tell((*story).dnsFails),
			"relay": tell((*story).relay), "restart": tell((*story).restart), "stop": tell((*story).stop),
			"tlsrelay": tell((*story).tlsrelay), "exit": tell((*story).exit), "api": tell((*story).api),
			"send": tell((*story).send), "event": tell((*story).event), "got": tell((*story).got),
		},
	})
}

type storyKey struct{}

// story is the world of one script.
type story struct {
	t        testing.TB
	dir      string
	world    *relaytest.World
	hosts    map[string]*relaytest.Host
	receiver *relaytest.Receiver
	process  *process
	key      string
	data     string // the relay's data directory
	code     int    // of the last tlsrelay command
}

func newStory(env *testscript.Env) *story {
	t := env.T().(testing.TB)
	env.Setenv("SETTINGS", "/v3/user/settings/enforced_tls")
	return &story{
		t: t, dir: env.WorkDir, world: relaytest.Start(t), hosts: map[string]*relaytest.Host{},
		receiver: relaytest.StartReceiver(t), key: account.NewSecret(),
	}
}

// tell makes a command of a script of a method: "!" wants its error.
func tell(f func(s *story, ts *testscript.TestScript, args []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		err := f(ts.Value(storyKey{}).(*story), ts, args)
		if (err != nil) != neg {
			ts.Fatalf("%v", errors.Join(err, fmt.Errorf("an error was expected: %t", neg)))
		}
	}
}

// traits are what a host can be told to be.
var traits = map[string]func(name string) relaytest.Script{
	"no-tls":      func(string) relaytest.Script { return relaytest.Script{NoTLS: true} },
	"busy":        func(string) relaytest.Script { return relaytest.Script{Greeting: relaytest.Reply{Code: 421}} },
	"tls-put-off": func(string) relaytest.Script { return relaytest.Script{StartTLS: relaytest.Reply{Code: 454}} },
	"only-tls-1.2": func(string) relaytest.Script {
		return relaytest.Script{TLS: relaytest.TLS{MaxVersion: tls.VersionTLS12}}
	},
	"self-signed": func(name string) relaytest.Script {
		return relaytest.Script{TLS: relaytest.TLS{Cert: &relaytest.Cert{Names: []string{name}, SelfSigned: true}}}
	},
}

func (s *story) host(_ *testscript.TestScript, args []string) (err error) {
	var script relaytest.Script
	for _, a := range args[1:] {
		if traits[a] == nil {
			return fmt.Errorf("no such trait: %s", a)
		}
		script = traits[a](args[0])
	}
	s.hosts[args[0]], err = s.world.AddHost(args[0], script)
	return err
}

func (s *story) mend(_ *testscript.TestScript, args []string) error {
	h := s.hosts[args[0]]
	defer h.HangUp() // who is connected would meet the old host
	return h.SetScript(relaytest.Script{})
}

func (s *story) dns(_ *testscript.TestScript, args []string) error {
	return s.world.Zone.Add(strings.Join(args, " "))
}

func (s *story) dnsFails(_ *testscript.TestScript, args []string) error {
	s.world.Zone.Trouble(args[0], 0, relaytest.Trouble{Rcode: 2})
	return nil
}

func (s *story) relay(ts *testscript.TestScript, args []string) error {
	file := filepath.Join(s.dir, "config.yaml")
	if _, err := os.Stat(file); err != nil {
		file = ""
	}
	said, err := configs.Load(file, nil)
	if err != nil {
		return err
	}
	// The operator's settings, in a world where nothing is far away.
	config := worldConfig(s.t, s.world)
	here := config.Delivery
	config.Delivery = said.Delivery
	config.Delivery.Resolver, config.Delivery.Port, config.Delivery.RootCAFile = here.Resolver, here.Port, here.RootCAFile
	config.Delivery.AllowPrivateAddresses = true
	config.Retention, config.Submission.MaxMessageBytes = said.Retention, said.Submission.MaxMessageBytes
	s.data = config.DataDir
	env := []string{"TLSRELAY_BOOTSTRAP_KEY=" + s.key}
	if len(args) > 0 && args[0] == "without-key" {
		env = nil
	}
	s.process = startProcess(s.t, configFile(s.t, config), env...).up()
	s.welcome(ts)
	return s.listen()
}

// welcome shows what the relay printed, and takes its key from where it is kept.
func (s *story) welcome(ts *testscript.TestScript) {
	if key, err := os.ReadFile(filepath.Join(s.data, keyFile)); err == nil {
		s.key = strings.TrimSpace(string(key))
	}
	io.WriteString(ts.Stdout(), s.process.printed())
}

// listen asks for all events.
func (s *story) listen() error {
	body := fmt.Sprintf(`{"url":%q,"enabled":true,"processed":true,"delivered":true,"bounce":true,"deferred":true}`, s.receiver.URL())
	_, err := s.call("POST", "/v3/user/webhooks/event/settings", body)
	return err
}

func (s *story) restart(ts *testscript.TestScript, _ []string) error {
	file, env := s.process.cmd.Args[3], s.process.cmd.Env
	if err := s.stop(ts, nil); err != nil {
		return err
	}
	s.process = startProcess(s.t, file, env...).up()
	s.welcome(ts)
	return nil
}

func (s *story) stop(*testscript.TestScript, []string) error {
	s.process.signal(syscall.SIGTERM)
	if code := s.process.wait(); code != 0 {
		return fmt.Errorf("exit code %d\n%s", code, s.process.logged())
	}
	return nil
}

func (s *story) tlsrelay(ts *testscript.TestScript, args []string) error {
	var env []string
	if s.process != nil {
		env = append(env, "TLSRELAY_ADMIN_URL=http://"+s.process.admin)
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = s.dir
	cmd.Env = append([]string{"TLSRELAY_TEST_RUN_MAIN=1", "GORACE=atexit_sleep_ms=0"}, env...)
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	err := cmd.Run()
	s.code = cmd.ProcessState.ExitCode()
	return err
}

func (s *story) exit(_ *testscript.TestScript, args []string) error {
	if want, err := strconv.Atoi(args[0]); err != nil || s.code != want {
		return fmt.Errorf("exit code %d, want %s", s.code, args[0])
	}
	return nil
}

func (s *story) call(method, path, body string) (string, error) {
	req, err := http.NewRequest(method, "http://"+s.process.api+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var text bytes.Buffer
	text.ReadFrom(res.Body)
	if res.StatusCode >= 300 {
		return text.String(), errors.New(res.Status)
	}
	return text.String(), nil
}

func (s *story) api(ts *testscript.TestScript, args []string) error {
	text, err := s.call(args[0], args[1], strings.Join(args[2:], " "))
	fmt.Fprintln(ts.Stdout(), text)
	return err
}

func (s *story) send(ts *testscript.TestScript, args []string) error {
	c, err := smtp.DialStartTLS(s.process.submission, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	defer c.Close()
	err = errors.Join(c.Auth(sasl.NewPlainClient("", "apikey", s.key)), c.Mail(args[0], nil), c.Rcpt(args[1], nil))
	if err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	io.WriteString(w, "Subject: story\r\n\r\nOnce upon a time.\r\n")
	res, err := w.CloseWithResponse()
	if err != nil {
		return err
	}
	_, id, _ := strings.Cut(res.StatusText, "queued as ")
	ts.Setenv("ID", strings.TrimSpace(id))
	return c.Quit()
}

func (s *story) event(_ *testscript.TestScript, args []string) error {
	var nearest any
	deadline := time.Now().Add(relaytest.Patience)
	for time.Now().Before(deadline) {
		all, err := s.receiver.Events()
		if err != nil {
			return err
		}
		for _, e := range all {
			if e["email"] != args[0] || e["event"] != args[1] {
				continue
			}
			if nearest = e; has(e, args[2:]) {
				return nil
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("no such event; nearest: %v", nearest)
}

// has reports whether an event has all of the KEY=VALUE pairs.
func has(e map[string]any, pairs []string) bool {
	for _, p := range pairs {
		key, value, _ := strings.Cut(p, "=")
		if fmt.Sprint(e[key]) != value {
			return false
		}
	}
	return true
}

func (s *story) got(_ *testscript.TestScript, args []string) error {
	want, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	all := s.hosts[args[0]].Await(s.t, want)
	if len(all) != want {
		return fmt.Errorf("%s has %d messages", args[0], len(all))
	}
	for _, m := range all {
		if how := len(args) > 2 && args[2] == "encrypted"; len(args) > 2 && how != (m.TLSVersion != 0) {
			return fmt.Errorf("a message to %s came encrypted: %t", m.To[0].Address, m.TLSVersion != 0)
		}
	}
	if len(args) > 2 && args[2] == "encrypted" && s.hosts[args[0]].LeakedInClear() {
		return fmt.Errorf("%s heard in clear: %q", args[0], s.hosts[args[0]].ClearCommands())
	}
	return nil
}
