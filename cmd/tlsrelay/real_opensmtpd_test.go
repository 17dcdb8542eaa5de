//go:build realclients

package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// OpenSMTPD looks the relay up by its name, for it verifies that name in the
// certificate, by the roots of the machine.
func TestRealOpenSMTPDAsClient(t *testing.T) {
	testSmarthostClient(t, func(t *testing.T, dir string, listen netip.AddrPort, relay smarthost) {
		world := ownedDir(t, filepath.Join(dir, "world"), 0, 0)
		addUsers(t, world, "opensmtpd", "opensmtpq")
		certificate, err := os.ReadFile(relay.certificate)
		if err != nil {
			t.Fatal(err)
		}
		for _, folder := range []string{"etc/ssl/certs", "var/spool", "var/lib/opensmtpd/empty"} {
			if err := os.MkdirAll(filepath.Join(world, folder), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("/run", filepath.Join(world, "var", "run")); err != nil {
			t.Fatal(err)
		}
		etc := filepath.Join(world, "etc")
		writePublic(t, filepath.Join(etc, "ssl", "certs", "ca-certificates.crt"), string(certificate))
		writePublic(t, filepath.Join(etc, "hosts"), "127.0.0.1 localhost "+relay.name+"\n")
		writePublic(t, filepath.Join(etc, "mailname"), "opensmtpd.test\n")
		writePublic(t, filepath.Join(etc, "secrets"), fmt.Sprintf("relay %s:%s\n", relay.user, relay.key))
		writePublic(t, filepath.Join(etc, "smtpd.conf"), fmt.Sprintf(opensmtpdSmarthost,
			listen.Addr(), listen.Port(), relay.name, relay.port))
		cmd := asInstalled(t, "opensmtpd", world, "smtpd", "-d")
		runServer(t, cmd, func() error { return cmd.Process.Kill() })
	})
}

const opensmtpdSmarthost = `table secrets file:/etc/secrets
listen on %[1]s port %[2]d
action "smarthost" relay host smtp+tls://relay@%[3]s:%[4]s auth <secrets>
match from any for any action "smarthost"
`
