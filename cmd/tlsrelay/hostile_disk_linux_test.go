package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"tlsrelay/configs"
	"tlsrelay/policy/account"
	"tlsrelay/relay/api"
	"tlsrelay/relay/relaytest"
)

// limitFiles bounds the size of files that a process may write; writes beyond
// it fail, as on a disk that is full or broken.
func limitFiles(t *testing.T, pid int, bytes uint64) {
	t.Helper()
	limit := syscall.Rlimit{Cur: bytes, Max: ^uint64(0)}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), syscall.RLIMIT_FSIZE,
		uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
}

// A store that cannot write puts mail off, says that it is not ready, loses
// nothing, and comes back by itself. Nobody kills the relay meanwhile.
func TestDiskFails(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	o := startOwn(t, "WATCHDOG_USEC=200000", "NOTIFY_SOCKET="+socket)
	host := o.world.Host(t, "mx.good.test", relaytest.Script{Greeting: relaytest.Reply{Code: 421}})
	send := func(want string) {
		t.Helper()
		k := talk(t, o.submission)
		last := "250"
		for _, line := range []string{"EHLO app.test", "MAIL FROM:<app@sender.test>", "RCPT TO:<a@good.test>", "DATA", "Subject: x\r\n\r\nx\r\n."} {
			if last = k.say(line, ""); last[0] > '3' {
				break // where it notices is the relay's business
			}
		}
		if !strings.HasPrefix(last, want) {
			t.Errorf("wanted %s, got %q", want, last)
		}
		k.say("QUIT", "221")
	}
	ready := func(want int) {
		t.Helper()
		eventually(t, fmt.Sprint("readiness is ", want), func() bool {
			res, err := http.Get("http://" + o.admin + "/readyz")
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			return res.StatusCode == want
		})
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	send("250 2.0.0")
	limitFiles(t, o.cmd.Process.Pid, 0)
	for range 3 {
		send("45") // 451, or 452 if the disk says that it is full
	}
	ready(http.StatusServiceUnavailable)
	systemd := listenAsManager(t, socket)
	systemd.hear(t, "WATCHDOG=1")
	systemd.hear(t, "WATCHDOG=1")
	limitFiles(t, o.cmd.Process.Pid, ^uint64(0))
	ready(http.StatusOK)
	send("250 2.0.0")
	if err := host.SetScript(relaytest.Script{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is delivered", func() bool {
		// An attempt under way, which meets the old greeting, is not retried.
		if _, err := command("http://"+o.admin, "queue", "retry", "--all"); err != nil {
			t.Fatal(err)
		}
		return host.Accepted() >= 2
	})
	o.signal(syscall.SIGTERM)
	if n := host.Accepted(); n != 2 {
		t.Errorf("%d messages came, and 2 were acknowledged", n)
	}
}

// ownIn is startOwn with a configuration of one's own.
func ownIn(t *testing.T, edit func(*configs.Config)) *own {
	t.Helper()
	o := &own{t: t, world: relaytest.Start(t)}
	config := worldConfig(t, o.world)
	config.Submission.AllowPlaintextAuth = true
	edit(&config)
	o.file = configFile(t, config)
	o.env = append(o.env, "TLSRELAY_BOOTSTRAP_KEY="+account.NewSecret())
	o.process = startProcess(t, o.file, o.env...).up()
	return o
}

// tenant makes a subuser with so many webhooks for all events at a URL, and gives
// its key.
func (o *own) tenant(name string, webhooks int, url string) (secret string) {
	o.t.Helper()
	run := func(args ...string) string {
		o.t.Helper()
		out, err := command("http://"+o.admin, args...)
		if err != nil {
			o.t.Fatal(err)
		}
		return out
	}
	run("account", "create", name)
	var k api.Key
	if err := json.Unmarshal([]byte(run("key", "create", "app", "--account", name, "--json")), &k); err != nil {
		o.t.Fatal(err)
	}
	for i := range webhooks {
		req, err := http.NewRequest("POST", "http://"+o.api+"/v3/user/webhooks/event/settings", strings.NewReader(fmt.Sprintf(
			`{"url":%q,"enabled":true,"processed":true,"delivered":true,"bounce":true,"deferred":true}`, url+strings.Repeat("/x", i))))
		if err != nil {
			o.t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+k.Secret)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			o.t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusCreated {
			o.t.Fatalf("%s: %s", res.Status, text)
		}
	}
	o.t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return k.Secret
}

// session is a client that has logged in.
func (o *own) session(secret string) *talker {
	o.t.Helper()
	k := talk(o.t, o.submission)
	k.say("EHLO app.test", "250")
	k.say(login(secret), "235")
	return k
}

// send hands a message in, as far as it is taken, and gives the last reply. It may be
// called beside the test.
func (k *talker) send(text string, to ...string) (reply string, err error) {
	lines := []string{"MAIL FROM:<app@sender.test>"}
	for _, a := range to {
		lines = append(lines, "RCPT TO:<"+a+">")
	}
	for _, line := range append(lines, "DATA", text+"\r\n.") {
		if _, err = fmt.Fprintf(k, "%s\r\n", line); err != nil {
			return "", err
		}
		k.SetReadDeadline(time.Now().Add(time.Minute))
		if reply, err = k.r.ReadString('\n'); err != nil || reply[0] > '3' {
			return reply, err
		}
	}
	return reply, nil
}

// amplified is the head of a message that says as much of itself as it may, which is
// to be told with every event.
func amplified() string {
	var b strings.Builder
	b.WriteString("X-SMTPAPI: {\"category\": [")
	for i := range 10 {
		fmt.Fprintf(&b, "\"%d%s\",\r\n ", i, strings.Repeat("c", 450))
	}
	b.WriteString("\"" + "end" + "\"], \"unique_args\": {\r\n ")
	for i := range 18 {
		fmt.Fprintf(&b, "\"key%02d\": \"%s\",\r\n ", i, strings.Repeat("v", 500))
	}
	b.WriteString("\"last\": \"\"}}\r\nSubject: amplified\r\n\r\nx")
	return strings.Replace(b.String(), "\"9"+strings.Repeat("c", 450)+"\",\r\n ", "", 1)
}

// used is what a directory takes on the disk.
func used(t *testing.T, dir string) (octets int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was there a moment ago
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			octets += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return octets
}

// peakMemory is the most memory that a process has had, in octets.
func peakMemory(t *testing.T, pid int) (octets int64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	if _, err := fmt.Sscan(rest, &octets); err != nil {
		t.Fatal(err)
	}
	return octets << 10
}

// Sixteen messages at once that say much of themselves, each to a thousand recipients
// and five webhooks that nobody answers: what is small on the wire stays small on the
// disk and in memory, and another tenant's messages are taken as before.
func TestAmplifiedEvents(t *testing.T) {
	const messages, recipients = 16, 1000
	var dir string
	o := ownIn(t, func(c *configs.Config) {
		dir = c.DataDir
		c.Submission.MaxRecipients = recipients
	})
	o.world.Host(t, "mx.sink.test")
	good := o.world.Host(t, "mx.good.test")
	evil := o.tenant("evil", 5, "http://127.0.0.1:1")
	receiver := relaytest.StartReceiver(t)
	other := o.session(o.tenant("other", 1, receiver.URL()))
	pace := func(n int) (median, slowest time.Duration) {
		t.Helper()
		var took []time.Duration
		for range n {
			begun := time.Now()
			if reply, err := other.send("Subject: x\r\n\r\nx", "a@good.test"); err != nil || !strings.HasPrefix(reply, "250") {
				t.Errorf("another tenant is told %q, %v", reply, err)
			}
			took = append(took, time.Since(begun))
		}
		slices.Sort(took)
		return took[n/2], took[n-1]
	}
	quiet, quietest := pace(50)
	before, beforeMemory := used(t, dir), peakMemory(t, o.cmd.Process.Pid)
	var rcpts []string
	for i := range recipients {
		rcpts = append(rcpts, fmt.Sprintf("u%d@sink.test", i))
	}
	head := amplified()
	var sessions []*talker
	for range messages {
		sessions = append(sessions, o.session(evil))
	}
	var senders sync.WaitGroup
	for _, k := range sessions {
		senders.Go(func() {
			if reply, err := k.send(head, rcpts...); err != nil || !strings.HasPrefix(reply, "250") {
				t.Errorf("the attacker is told %q, %v", reply, err)
			}
		})
	}
	busy, slowest := pace(150)
	senders.Wait()
	eventually(t, "much is delivered, too", func() bool {
		return o.metric(`tlsrelay_events_total{kind="delivered"`) >= messages*recipients/4
	})
	disk, memory := used(t, dir)-before, peakMemory(t, o.cmd.Process.Pid)-beforeMemory
	t.Logf("%d messages of %d KB: %d KB more on the disk, %d MB more memory; others wait %v, %v at most (%v, %v before)",
		messages, (len(head)+recipients*30)/1000, disk/1000, memory/1_000_000, busy, slowest, quiet, quietest)
	if n := o.metric("tlsrelay_webhook_events_waiting"); n < 5*messages*recipients {
		t.Errorf("%v events are said to wait", n)
	}
	if disk > 150_000_000 {
		t.Errorf("%d octets on the disk", disk)
	}
	if memory > 1_500_000_000 { // most of it the race detector's
		t.Errorf("%d octets of memory", memory)
	}
	if busy > max(time.Second, 4*quiet) || slowest > 20*time.Second { // with the race detector, and all on two processors
		t.Errorf("messages of another tenant took %v, and %v at most", busy, slowest)
	}
	good.Await(t, 200)
}

// metric sums the samples whose name and labels begin so.
func (o *own) metric(name string) float64 {
	o.t.Helper()
	return metricAt(o.t, o.admin, name)
}

// smallDisk mounts a file system of so many octets that is nobody else's.
func smallDisk(t *testing.T, kind string, size int64) (dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	dir = t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Skipf("%s %v: %v: %s", name, args, err, out)
		}
	}
	if kind == "tmpfs" {
		run("mount", "-t", "tmpfs", "-o", fmt.Sprint("size=", size), "tmpfs", dir)
	} else {
		image := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(image, size); err != nil {
			t.Fatal(err)
		}
		run("mkfs."+kind, "-q", "-m", "0", image)
		run("mount", "-o", "loop", image, dir)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// fillUp makes a file, or makes it larger, until no octet more finds room.
func fillUp(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, n := range []int{1 << 20, 4096, 1} {
		for chunk := make([]byte, n); err == nil; {
			_, err = f.Write(chunk)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
}

// A disk that a tenant fills as far as it may, and somebody else to the last octet:
// the relay opens its store on it, delivers all that had its 250 and tells of it, and
// takes mail again when there is room.
func TestFullDisk(t *testing.T) {
	for kind, size := range map[string]int64{"tmpfs": 240 << 20, "ext4": 288 << 20} { // it keeps a journal
		t.Run(kind, func(t *testing.T) { fullDisk(t, smallDisk(t, kind, size)) })
	}
}

func fullDisk(t *testing.T, disk string) {
	o := ownIn(t, func(c *configs.Config) {
		c.DataDir, c.MinFreeDisk = filepath.Join(disk, "data"), 96<<20
		c.Submission.MaxRecipients = 1000
	})
	later := relaytest.Script{Greeting: relaytest.Reply{Code: 421}}
	good := o.world.Host(t, "mx.good.test", later)
	o.world.Host(t, "mx.sink.test", later)
	receiver := relaytest.StartReceiver(t)
	evil, shop := o.tenant("evil", 5, "http://127.0.0.1:1"), o.tenant("shop", 1, receiver.URL())

	// One tenant says much, the other sends much; both are told in time that there is
	// no room.
	var rcpts []string
	for i := range 1000 {
		rcpts = append(rcpts, fmt.Sprintf("u%d@sink.test", i))
	}
	noise := make([]byte, 300<<10)
	rand.Read(noise)
	body := base64.StdEncoding.EncodeToString(noise)
	var mu sync.Mutex
	var taken []string
	var senders sync.WaitGroup
	sendUntilFull := func(secret string, next func(n int) (text string, to []string)) {
		k := o.session(secret)
		senders.Go(func() {
			for n := 0; ; n++ {
				text, to := next(n)
				reply, err := k.send(text, to...)
				if err != nil || !strings.HasPrefix(reply, "250") {
					if !strings.HasPrefix(reply, "452 4.3.1") {
						t.Errorf("wanted 452, got %q, %v", reply, err)
					}
					return
				}
				if len(to) == 1 {
					mu.Lock()
					taken = append(taken, to[0])
					mu.Unlock()
				}
			}
		})
	}
	for i := range 8 {
		sendUntilFull(shop, func(n int) (string, []string) {
			size := []int{1 << 10, 150 << 10, 400 << 10}[n%3] // in a batch, and in a spool file
			var lines strings.Builder
			for at := 0; at < size; at += 76 {
				lines.WriteString("\r\n" + body[at%len(body):][:min(76, len(body)-at%len(body))])
			}
			return "Subject: x\r\n" + lines.String(), []string{fmt.Sprintf("m%d.%d@good.test", i, n)}
		})
	}
	for range 4 {
		sendUntilFull(evil, func(int) (string, []string) { return amplified(), rcpts })
	}
	senders.Wait()
	free := o.metric("tlsrelay_store_free_bytes")
	t.Logf("%d messages of one tenant are taken; %.0f MiB are free, of 96 that must be", len(taken), free/(1<<20))
	if up := o.metric("tlsrelay_store_up"); up != 1 || free < 60<<20 {
		t.Errorf("up %v, free %v", up, free)
	}
	// Somebody else takes the rest, and the relay dies.
	foreign := filepath.Join(disk, "foreign")
	fillUp(t, foreign)
	o.cmd.Process.Kill()
	<-o.ended
	fillUp(t, foreign)

	begun := time.Now()
	o.process = startProcess(t, o.file, o.env...).up()
	t.Logf("ready after %v", time.Since(begun))
	t.Logf("%.0f MiB are free then", o.metric("tlsrelay_store_free_bytes")/(1<<20))
	if err := good.SetScript(relaytest.Script{}); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	eventually(t, "all is delivered that had its 250", func() bool {
		if _, err := command("http://"+o.admin, "queue", "retry", "--all"); err != nil {
			t.Log(err)
		}
		for _, m := range good.Messages() {
			for _, to := range m.To {
				got[to.Address] = true
			}
		}
		return len(got) >= len(taken)
	})
	told := map[string]int{}
	eventually(t, "all is told", func() bool {
		all, err := receiver.Events()
		if err != nil {
			t.Fatal(err)
		}
		clear(told)
		for _, e := range all {
			if e["event"] == "processed" || e["event"] == "delivered" {
				told[fmt.Sprint(e["event"], e["email"])]++
			}
		}
		return len(told) >= 2*len(taken)
	})
	for _, a := range taken {
		if !got[a] || told["processed"+a] == 0 || told["delivered"+a] == 0 {
			t.Errorf("%s: delivered %t, told %d, %d", a, got[a], told["processed"+a], told["delivered"+a])
		}
	}
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	eventually(t, "mail is taken again, and there is a ballast", func() bool {
		info, err := os.Stat(filepath.Join(disk, "data", "ballast"))
		if err != nil || info.Size() != 48<<20 {
			return false
		}
		reply, err := o.session(shop).send("Subject: x\r\n\r\nx", "after@good.test")
		return err == nil && strings.HasPrefix(reply, "250")
	})
	o.signal(syscall.SIGTERM)
	for _, want := range []string{"the disk has no room to open the store", "room is set aside for an opening"} {
		if !strings.Contains(o.logged(), want) {
			t.Errorf("the log does not say: %s", want)
		}
	}
}
