package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

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
