//go:build realclients

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRealChasquid(t *testing.T) {
	testRealServer(t, realServer{start: startChasquid, unknown: true, missing: map[string]string{
		"notls":     "it lists STARTTLS even without a certificate",
		"newest-12": "it has no setting for TLS versions",
		"newest-11": "it has no setting for TLS versions",
	}})
}

// startChasquid runs one chasquid for each host.
func startChasquid(t *testing.T, dir string, hosts map[string]realHost) {
	keep := keeper(t, dir)
	for name, h := range hosts {
		world := ownedDir(t, filepath.Join(dir, name), 0, 0)
		etc := filepath.Join(world, "etc", "chasquid")
		domain, certs := filepath.Join(etc, "domains", h.domain), filepath.Join(etc, "certs", "mx."+h.domain)
		for _, folder := range []string{domain, certs, filepath.Join(world, "var", "lib", "chasquid")} {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		writePublic(t, filepath.Join(etc, "chasquid.conf"), fmt.Sprintf(chasquidConfig, "mx."+h.domain, h.addr))
		writePublic(t, filepath.Join(domain, "aliases"), chasquidAliases(keep))
		for _, file := range []string{"fullchain.pem", "privkey.pem"} {
			if err := os.Symlink(h.chain, filepath.Join(certs, file)); err != nil {
				t.Fatal(err)
			}
		}
		cmd := asInstalled(t, "chasquid", world, "chasquid")
		runServer(t, cmd, func() error { return cmd.Process.Kill() })
	}
}

// chasquidAliases gives everybody but strangers to one program.
func chasquidAliases(keep string) string {
	names := []string{"grüße", "known"}
	for _, p := range realPolicies {
		names = append(names, strings.ToLower(p.name))
	}
	for n := range burst {
		names = append(names, fmt.Sprintf("burst-%d", n))
	}
	return strings.Join(names, ": | "+keep+"\n") + ": | " + keep + "\n"
}

const chasquidConfig = `hostname: %q
smtp_address: "%s"
mail_log_path: "<stdout>"
`

// keeper is a program that puts its standard input into the maildir.
func keeper(t *testing.T, dir string) string {
	t.Helper()
	keep := filepath.Join(dir, "keep")
	writePublic(t, keep, fmt.Sprintf(keepScript, makeMaildir(t, dir)))
	if err := os.Chmod(keep, 0o755); err != nil {
		t.Fatal(err)
	}
	return keep
}

const keepScript = `#!/bin/sh
set -e
umask 022
file=$(mktemp %[1]s/tmp/XXXXXXXXXX)
cat >"$file"
mv "$file" %[1]s/new/
`
