//go:build realclients

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestRealCourier(t *testing.T) {
	testRealServer(t, realServer{start: startCourier})
}

// startCourier runs one Courier for each host, with what Debian's package says
// but for the lines below.
func startCourier(t *testing.T, dir string, hosts map[string]realHost) {
	keep := keeper(t, dir)
	for _, folder := range []string{"tmp", "new"} {
		if err := os.Chmod(filepath.Join(dir, "mail", folder), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for name, h := range hosts {
		world := ownedDir(t, filepath.Join(dir, name), 0, 0)
		syslog(t, world)
		addUsers(t, world, "courier")
		for _, folder := range []string{"etc/courier/aliasdir", "run/courier/authdaemon", "var/lib"} {
			if err := os.MkdirAll(filepath.Join(world, folder), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		ownedDir(t, filepath.Join(world, "var/lib/courier"), firstUser, firstUser)
		for _, folder := range []string{"allfilters", "filters", "msgq", "msgs", "tmp", "track"} {
			ownedDir(t, filepath.Join(world, "var/lib/courier", folder), firstUser, firstUser)
		}
		packaged, err := os.ReadFile(filepath.Join(unpacked(t, "courier"), "etc", "courier", "esmtpd"))
		if err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{
			"esmtpd":                    string(packaged) + courierListen(h),
			"me":                        "mx." + h.domain + "\n",
			"defaultdomain":             h.domain + "\n",
			"locals":                    h.domain + "\n",
			"esmtpacceptmailfor":        h.domain + "\n",
			"aliasdir/.courier-default": "| " + keep + "\n",
		} {
			writePublic(t, filepath.Join(world, "etc", "courier", file), text)
		}
		cmd := asInstalled(t, "courier", world, "/bin/sh", "-c", "authdaemond start; courier start; esmtpd start; exec sleep infinity")
		runServer(t, cmd, func() error { return cmd.Process.Kill() })
	}
}

// courierListen is the end of esmtpd, a shell script, for one host.
func courierListen(h realHost) string {
	text := fmt.Sprintf("ADDRESS=%s\nPORT=%d\nBOFHCHECKDNS=0\nTCPDOPTS='-nodnslookup -noidentlookup'\nTLS_CERTFILE=%s\n",
		h.addr.Addr(), h.addr.Port(), h.chain)
	switch {
	case h.chain == "":
		text += "COURIERTLS=\n"
	case h.newest == "1.1":
		text += "TLS_PRIORITY=NORMAL:-VERS-ALL:+VERS-TLS1.1:%VERIFY_ALLOW_SIGN_WITH_SHA1\n"
	case h.newest != "":
		text += "TLS_PRIORITY=NORMAL:-VERS-TLS1.3\n"
	}
	return text
}
