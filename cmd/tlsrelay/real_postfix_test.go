//go:build realclients

package main

import (
	"fmt"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestRealPostfix(t *testing.T) {
	testRealServer(t, realServer{start: startPostfix, unknown: true})
}

// A Postfix that takes five connections from an address, as Courier does by
// default. It spares mynetworks.
func TestRealPostfixOfFewConnections(t *testing.T) {
	r := newRig(t)
	dir := publicDir(t)
	nobody, nogroup := ids(t, "nobody")
	ownedDir(t, filepath.Join(dir, "mail"), nobody, nogroup)
	h := realHost{domain: "good.test", addr: r.world.AddDeadHost("mx.good.test")}
	runPostfix(t, dir, fmt.Sprintf(postfixReceiver, dir, nobody, nogroup)+postfixFew, postfixService(h))
	awaitListener(t, h.addr)
	receiver, _ := r.webhook()
	r.takesBurst(t, receiver, dir, h)
}

const postfixFew = `smtpd_client_connection_count_limit = 5
smtpd_client_event_limit_exceptions =
`

// startPostfix runs one Postfix with a service for each host.
func startPostfix(t *testing.T, dir string, hosts map[string]realHost) {
	// Postfix does not put mail into folders of its own user.
	nobody, nogroup := ids(t, "nobody")
	ownedDir(t, filepath.Join(dir, "mail"), nobody, nogroup)
	var services string
	for _, h := range hosts {
		services += postfixService(h)
	}
	runPostfix(t, dir, fmt.Sprintf(postfixReceiver, dir, nobody, nogroup), services)
}

// runPostfix runs Postfix in dir until the test ends, with additions to main.cf
// and master.cf.
func runPostfix(t *testing.T, dir, main, services string) {
	t.Helper()
	postfix := realProgram(t, "postfix", "/usr/sbin/postfix")
	uid, gid := ids(t, "postfix")
	ownedDir(t, filepath.Join(dir, "data"), uid, gid)
	ownedDir(t, filepath.Join(dir, "queue"), 0, 0)
	etc := ownedDir(t, filepath.Join(dir, "etc"), 0, 0)
	writePublic(t, filepath.Join(etc, "main.cf"), fmt.Sprintf(postfixMain, dir)+main)
	writePublic(t, filepath.Join(etc, "master.cf"), postfixMaster+services)
	runServer(t, exec.Command(postfix, "-c", etc, "start-fg"), func() error {
		return exec.Command(postfix, "-c", etc, "stop").Run()
	})
}

// ids are the numbers of a user that has to be there.
func ids(t *testing.T, name string) (uid, gid int) {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatalf("%v; .ci/run makes it", err)
	}
	if uid, err = strconv.Atoi(u.Uid); err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	if err != nil {
		t.Fatal(err)
	}
	return uid, gid
}

const postfixMain = `compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = /dev/stdout
myhostname = postfix.test
mydestination =
alias_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
message_size_limit = 0
smtpd_tls_loglevel = 1
`

const postfixReceiver = `virtual_mailbox_limit = 0
virtual_mailbox_domains = static:all
virtual_mailbox_base = %[1]s
virtual_mailbox_maps = static:mail/
virtual_uid_maps = static:%[2]d
virtual_gid_maps = static:%[3]d
smtpd_tls_received_header = yes
smtpd_recipient_restrictions = check_recipient_access regexp:{{/^unknown/ 550 5.1.1 Nobody}}, reject_unauth_destination
`

const postfixMaster = `cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
smtp      unix  - - n - - smtp
virtual   unix  - n n - - virtual
anvil     unix  - - n - 1 anvil
postlog   unix-dgram n - n - 1 postlogd
`

// postfixService is the entry of master.cf for one host.
func postfixService(h realHost) string {
	options := []string{h.addr.String() + " inet n - n - - smtpd"}
	switch {
	case h.chain == "":
		options = append(options, "smtpd_tls_security_level=none")
	case h.newest == "1.1":
		// Debian's OpenSSL needs to be talked into it.
		options = append(options, "smtpd_tls_security_level=may", "smtpd_tls_chain_files="+h.chain,
			"smtpd_tls_protocols=<=TLSv1.1", "smtpd_tls_ciphers=medium", "tls_medium_cipherlist=ALL:@SECLEVEL=0")
	case h.newest != "":
		options = append(options, "smtpd_tls_security_level=may", "smtpd_tls_chain_files="+h.chain,
			"smtpd_tls_protocols=<=TLSv"+h.newest)
	default:
		options = append(options, "smtpd_tls_security_level=may", "smtpd_tls_chain_files="+h.chain)
	}
	return strings.Join(options, "\n  -o ") + "\n"
}
