//go:build realclients

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// Servers that are libraries: a short script makes a host of each.

func TestRealAiosmtpd(t *testing.T) {
	testRealServer(t, realServer{
		start: func(t *testing.T, dir string, hosts map[string]realHost) {
			// Debian's own Python has Debian's aiosmtpd.
			startScript(t, dir, hosts, "/usr/bin/python3", "receive.py")
		},
		unknown: true,
	})
}

func TestRealSMTPServer(t *testing.T) {
	needNodeModules(t)
	testRealServer(t, realServer{unknown: true, start: func(t *testing.T, dir string, hosts map[string]realHost) {
		startScript(t, dir, hosts, "node", "receive.js")
	}})
}

// startScript runs a script of testdata/clients for each host.
func startScript(t *testing.T, dir string, hosts map[string]realHost, program, script string) {
	t.Helper()
	mail := makeMaildir(t, dir)
	for _, h := range hosts {
		cmd := exec.Command(realProgram(t, program), script, mail, h.addr.Addr().String(), strconv.Itoa(int(h.addr.Port())), h.chain, h.newest)
		cmd.Dir = filepath.Join("testdata", "clients")
		runServer(t, cmd, func() error { return cmd.Process.Kill() })
	}
}

// makeMaildir makes the maildir called mail in dir for servers that bring none.
func makeMaildir(t *testing.T, dir string) string {
	t.Helper()
	mail := filepath.Join(dir, "mail")
	for _, folder := range []string{"new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(mail, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return mail
}
