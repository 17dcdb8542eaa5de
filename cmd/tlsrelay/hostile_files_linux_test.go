package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsrelay/policy/account"
	"tlsrelay/relay/relaytest"
)

// A program run by a test may open few files.
func init() {
	const name = "TLSRELAY_TEST_OPEN_FILES"
	n, err := strconv.ParseUint(os.Getenv(name), 10, 64)
	if err != nil {
		return
	}
	os.Unsetenv(name)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
		panic(err)
	}
}

// Where the system allows few open files, the bounds are lower, and the operator is
// told: strangers take the files of nobody else, and whoever has a key gets in.
func TestFewOpenFiles(t *testing.T) {
	const files, strangers, perSecond = 1024, 1100, 300
	config, key := worldConfig(t, relaytest.Start(t)), account.NewSecret()
	config.Submission.AllowPlaintextAuth = true
	p := startProcess(t, configFile(t, config), fmt.Sprint("TLSRELAY_TEST_OPEN_FILES=", files), "TLSRELAY_BOOTSTRAP_KEY="+key).up()
	if found, last := p.lines("the process may open fewer files"); len(found) != 1 || found[0]["open_files"] != float64(files) {
		t.Errorf("%v, last %v", found, last)
	}
	for _, addr := range []string{p.submission, p.api} {
		all := gather(strangers, perSecond, true, addr, saying(""))
		defer all.scatter()
		eventually(t, "all have come", func() bool { return all.dialed.Load() >= strangers })
	}
	good := newPacer(t, "http://"+p.api)
	fresh, kept := good.calls(30, good.tenant(key))
	t.Logf("new connections %v; kept %v", fresh, kept)
	fresh.check(t, "on new connections", pace{})
	kept.check(t, "on one that is kept", pace{})
	k := talk(t, p.submission)
	k.say("EHLO app.test", "250")
	k.say(login(key), "235")
	if open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)); err != nil || len(open) >= files {
		t.Errorf("%d files are open: %v", len(open), err)
	}
	if strings.Contains(p.logged(), "too many open files") {
		t.Error("files have run out")
	}
}

// A large body on its way in has a file beside its connection. One tenant that has as
// many of them as it can leaves enough for the store, and for others.
func TestLargeBodiesLeaveFiles(t *testing.T) {
	const files = 300
	world := relaytest.Start(t)
	config, key := worldConfig(t, world), account.NewSecret()
	config.Submission.AllowPlaintextAuth = true
	o := &own{t: t, world: world, file: configFile(t, config)}
	o.env = []string{fmt.Sprint("TLSRELAY_TEST_OPEN_FILES=", files), "TLSRELAY_BOOTSTRAP_KEY=" + key}
	o.process = startProcess(t, o.file, o.env...).up()
	bad, good := o.tenant("bad", 0, ""), o.session(o.tenant("good", 0, ""))
	n := 0
	for ; n < files && begins(t, o.submission, bad, 300<<10); n++ {
	}
	fds := func() int {
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", o.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(open)
	}
	t.Logf("%d bodies are on their way, and %d files open", n, fds())
	for range 20 {
		if reply, err := good.send("Subject: other\r\n\r\nx", "b@good.example"); err != nil || !strings.HasPrefix(reply, "250") {
			t.Fatalf("another tenant's message: %q, %v", reply, err)
		}
	}
	if n < 20 || fds() >= files {
		t.Errorf("%d bodies, %d files", n, fds())
	}
	if strings.Contains(o.logged(), "too many open files") {
		t.Error("files have run out")
	}
}

// begins hands in a message as far as so many octets of its content, without a line
// end, and reports whether it could.
func begins(t *testing.T, addr, secret string, octets int) bool {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	for _, line := range []string{"", login(secret), "MAIL FROM:<a@sender.test>", "RCPT TO:<b@rcpt.test>", "DATA"} {
		if line != "" {
			fmt.Fprintf(c, "%s\r\n", line)
		}
		if reply, err := r.ReadString('\n'); err != nil || reply[0] > '3' {
			return false
		}
		if line == "" {
			fmt.Fprint(c, "HELO app.test\r\n")
			if _, err := r.ReadString('\n'); err != nil {
				return false
			}
		}
	}
	_, err = fmt.Fprintf(c, "Subject: large\r\n\r\n%s", strings.Repeat(strings.Repeat("x", 70)+"\r\n", octets/72))
	return err == nil
}
