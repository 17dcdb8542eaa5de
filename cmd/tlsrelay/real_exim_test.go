//go:build realclients

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRealExim(t *testing.T) {
	testRealServer(t, realServer{start: startExim, unknown: true})
}

// startExim runs one Exim that is every host, by the address it was called at.
func startExim(t *testing.T, dir string, hosts map[string]realHost) {
	uid, gid := ids(t, "Debian-exim")
	ownedDir(t, filepath.Join(dir, "spool"), uid, gid)
	ownedDir(t, filepath.Join(dir, "mail"), uid, gid)
	var listen, clear, priorities []string
	for _, h := range hosts {
		listen = append(listen, fmt.Sprintf("[%s]:%d", h.addr.Addr(), h.addr.Port()))
		switch {
		case h.chain == "":
			clear = append(clear, h.addr.Addr().String())
		case h.newest == "1.1":
			priorities = append(priorities, fmt.Sprintf("%s=NORMAL:-VERS-ALL:+VERS-TLS1.1:%%VERIFY_ALLOW_SIGN_WITH_SHA1", h.addr.Addr()))
		case h.newest == "1.2":
			priorities = append(priorities, fmt.Sprintf("%s=NORMAL:-VERS-TLS1.3", h.addr.Addr()))
		}
	}
	runExim(t, dir, fmt.Sprintf(eximConfig, dir, strings.Join(listen, " ; "),
		strings.Join(clear, " : "), strings.Join(priorities, " ")))
}

// runExim runs Exim in dir until the test ends. The configuration is where it
// looks for one, for of others it is suspicious.
func runExim(t *testing.T, dir, config string) {
	t.Helper()
	world := filepath.Join(dir, "world")
	if err := os.MkdirAll(filepath.Join(world, "etc", "exim4"), 0o755); err != nil {
		t.Fatal(err)
	}
	writePublic(t, filepath.Join(world, "etc", "exim4", "exim4.conf"), config)
	cmd := asInstalled(t, "exim", world, "exim4", "-bdf")
	runServer(t, cmd, func() error { return cmd.Process.Kill() })
}

const eximConfig = `primary_hostname = exim.test
spool_directory = %[1]s/spool
log_file_path = %[1]s/spool/%%slog
local_interfaces = <; %[2]s
exim_user = Debian-exim
exim_group = Debian-exim
deliver_drop_privilege = true
keep_environment =
host_lookup =
acl_smtp_rcpt = rcpt
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
message_size_limit = 0
smtp_accept_max = 0
tls_advertise_hosts = ${if inlist{$received_ip_address}{%[3]s}{}{*}}
tls_certificate = %[1]s/$received_ip_address.pem
tls_require_ciphers = ${if def:received_ip_address {${extract{$received_ip_address}{%[4]s}{$value}{NORMAL}}}{NORMAL}}

begin acl
rcpt:
  deny local_parts = ^unknown
       message = 5.1.1 Nobody
  accept

begin routers
all:
  driver = accept
  transport = save

begin transports
save:
  driver = appendfile
  maildir_format
  directory = %[1]s/mail
  user = Debian-exim
`
