package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

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
