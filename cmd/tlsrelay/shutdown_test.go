package main

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsrelay/configs"
	"tlsrelay/policy/account"
	"tlsrelay/relay/relaytest"
)

// talker speaks SMTP line by line, as nobody's library would.
type talker struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

// talk connects and reads the greeting.
func talk(t testing.TB, addr string) *talker {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	k := &talker{t, c, bufio.NewReader(c)}
	k.hear("220")
	return k
}

// say sends a line and wants a reply that begins so.
func (k *talker) say(line, want string) string {
	k.t.Helper()
	fmt.Fprintf(k, "%s\r\n", line)
	return k.hear(want)
}

// hear reads a reply and wants it to begin so.
func (k *talker) hear(want string) string {
	k.t.Helper()
	k.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		line, err := k.r.ReadString('\n')
		if err != nil {
			k.t.Fatalf("wanted %s, got %q, %v", want, line, err)
		}
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		if !strings.HasPrefix(line, want) {
			k.t.Fatalf("wanted %s, got %q", want, line)
		}
		return line
	}
}

// over wants the end of the connection.
func (k *talker) over() {
	k.t.Helper()
	k.SetReadDeadline(time.Now().Add(30 * time.Second))
	if line, err := k.r.ReadString('\n'); err == nil || os.IsTimeout(err) {
		k.t.Fatalf("wanted the end, got %q, %v", line, err)
	}
}

// trusting lets loopback submit without AUTH, for talkers.
func trusting(c *configs.Config) {
	c.Submission.TrustedNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
}

// own is a relay in a process of its own, with a world.
type own struct {
	*process
	t     *testing.T
	world *relaytest.World
	file  string
	env   []string
}

func startOwn(t *testing.T, env ...string) *own {
	t.Helper()
	o := &own{t: t, world: relaytest.Start(t)}
	config := worldConfig(t, o.world)
	trusting(&config)
	o.file = configFile(t, config)
	o.env = append(env, "TLSRELAY_BOOTSTRAP_KEY="+account.NewSecret())
	o.process = startProcess(t, o.file, o.env...).up()
	return o
}

// SIGTERM: who is idle is told and goes, who is in the middle of a message may
// finish it, and the process ends well. What it took goes out, by it or by the
// next.
func TestDrain(t *testing.T) {
	o := startOwn(t)
	host := o.world.Host(t, "mx.good.test")
	idle, busy := talk(t, o.submission), talk(t, o.submission)
	idle.say("EHLO app.test", "250")
	busy.say("EHLO app.test", "250")
	busy.say("MAIL FROM:<app@sender.test>", "250")
	busy.say("RCPT TO:<a@good.test>", "250")
	busy.say("DATA", "354")
	fmt.Fprint(busy, "Subject: begun before the end\r\n\r\nHello")

	begun := time.Now()
	o.cmd.Process.Signal(syscall.SIGTERM)
	if line := idle.hear("421"); !strings.HasPrefix(line, "421 4.3.2 ") {
		t.Errorf("an idle client was told %q", line)
	}
	idle.over()
	busy.say(".\r\n.", "250 2.0.0 Ok: queued as ")
	busy.hear("421")
	busy.over()
	if code := o.wait(); code != 0 {
		t.Errorf("exit code %d\n%s", code, o.logged())
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("the drain took %v with nothing to wait for", took)
	}
	next := startProcess(t, o.file, o.env...).up()
	host.Await(t, 1)
	next.signal(syscall.SIGTERM)
	if n := host.Accepted(); n != 1 {
		t.Errorf("the message arrived %d times", n)
	}
}

// A host that never says a word does not hold up the end.
func TestDrainLeavesTarpits(t *testing.T) {
	o := startOwn(t)
	host := o.world.Host(t, "mx.good.test", relaytest.Script{Greeting: relaytest.Reply{Do: relaytest.Silence}})
	k := talk(t, o.submission)
	k.say("EHLO app.test", "250")
	k.say("MAIL FROM:<app@sender.test>", "250")
	k.say("RCPT TO:<a@good.test>", "250")
	k.say("DATA", "354")
	k.say("Subject: x\r\n\r\nHello\r\n.", "250")
	eventually(t, "the relay is stuck", func() bool { return host.Open() == 1 })
	begun := time.Now()
	o.cmd.Process.Signal(syscall.SIGTERM)
	if code := o.wait(); code != 0 {
		t.Errorf("exit code %d\n%s", code, o.logged())
	}
	if took := time.Since(begun); took > 20*time.Second { // of the 30 s that a transaction would have
		t.Errorf("it took %v to leave", took)
	}
	if err := host.SetScript(relaytest.Script{}); err != nil {
		t.Fatal(err)
	}
	next := startProcess(t, o.file, o.env...).up()
	host.Await(t, 1) // at once: what was cut short was no attempt
	next.signal(syscall.SIGTERM)
}

// Only one process works on a data directory. Another one says so and leaves,
// while the first serves and while it drains; once it is gone the next takes
// over at once.
func TestSecondStart(t *testing.T) {
	o := startOwn(t)
	host := o.world.Host(t, "mx.good.test", relaytest.Script{Greeting: relaytest.Reply{Code: 421}})
	busy := talk(t, o.submission)
	busy.say("EHLO app.test", "250")
	busy.say("MAIL FROM:<app@sender.test>", "250")
	refused := func() {
		t.Helper()
		p := startProcess(t, o.file, o.env...)
		if code := p.wait(); code != exitFailure || !strings.Contains(p.logged(), "another process has") {
			t.Errorf("exit code %d, log:\n%s", code, p.logged())
		}
	}
	refused()
	o.cmd.Process.Signal(syscall.SIGTERM)
	eventually(t, "the relay drains", func() bool { return strings.Contains(o.logged(), "stopping") })
	refused()
	busy.say("RCPT TO:<a@good.test>", "250")
	busy.say("DATA", "354")
	busy.say("Subject: x\r\n\r\nHello\r\n.", "250")
	if code := o.wait(); code != 0 {
		t.Errorf("exit code %d\n%s", code, o.logged())
	}
	if err := host.SetScript(relaytest.Script{}); err != nil {
		t.Fatal(err)
	}
	next := startProcess(t, o.file, o.env...).up()
	if _, err := command("http://"+next.admin, "queue", "retry", "--all"); err != nil {
		t.Fatal(err)
	}
	host.Await(t, 1)
	next.signal(syscall.SIGTERM)
}

// manager is the end of the notify socket at which systemd listens.
type manager struct{ *net.UnixConn }

func listenAsManager(t *testing.T, socket string) manager {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return manager{l}
}

// hear waits for a notification.
func (m manager) hear(t *testing.T, want string) {
	t.Helper()
	m.SetReadDeadline(time.Now().Add(30 * time.Second))
	buf := make([]byte, 1000)
	for {
		n, err := m.Read(buf)
		if err != nil {
			t.Fatalf("no %s: %v", want, err)
		}
		if strings.Contains(string(buf[:n]), want) {
			return
		}
	}
}

// systemd hears when the relay is ready, that it is alive, and that it stops.
func TestSystemd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	systemd := listenAsManager(t, socket)
	for _, c := range []struct {
		name     string
		env      []string
		watchdog bool
	}{
		{"with a watchdog", []string{"WATCHDOG_USEC=200000"}, true},
		{"without", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := startOwn(t, append(c.env, "NOTIFY_SOCKET="+socket)...)
			systemd.hear(t, "READY=1")
			if c.watchdog {
				systemd.hear(t, "WATCHDOG=1")
				systemd.hear(t, "WATCHDOG=1")
			}
			busy := talk(t, o.submission)
			busy.say("EHLO app.test", "250")
			busy.say("MAIL FROM:<app@sender.test>", "250")
			o.cmd.Process.Signal(syscall.SIGTERM)
			systemd.hear(t, "STOPPING=1") // while the drain goes on
			busy.say("QUIT", "221")
			if code := o.wait(); code != 0 {
				t.Errorf("exit code %d\n%s", code, o.logged())
			}
		})
	}
}
