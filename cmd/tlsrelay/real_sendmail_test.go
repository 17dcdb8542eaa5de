//go:build realclients

package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func TestRealSendmail(t *testing.T) {
	testRealServer(t, realServer{start: startSendmail, ascii: true})
}

// startSendmail runs one sendmail for each host.
func startSendmail(t *testing.T, dir string, hosts map[string]realHost) {
	keep := keeper(t, dir)
	for name, h := range hosts {
		world := ownedDir(t, filepath.Join(dir, name), 0, 0)
		config := fmt.Sprintf(sendmailListen, h.addr.Addr(), h.addr.Port())
		files := map[string]string{"access": "Connect:127\tRELAY\n"}
		if h.chain != "" {
			chain, err := os.ReadFile(h.chain)
			if err != nil {
				t.Fatal(err)
			}
			files["chain.pem"] = string(chain)
			config += sendmailTLS
		}
		config += "MAILER(local)\nMAILER(smtp)\n" + fmt.Sprintf(sendmailKeep, keep)
		switch h.newest {
		case "1.2":
			config += "LOCAL_CONFIG\nO ServerSSLOptions=+SSL_OP_NO_TLSv1_3\n"
		case "1.1":
			// Debian's OpenSSL needs to be talked into it.
			config += "LOCAL_CONFIG\nO ServerSSLOptions=+SSL_OP_NO_TLSv1_3 +SSL_OP_NO_TLSv1_2\nO CipherList=ALL:@SECLEVEL=0\n"
			if err := os.MkdirAll(filepath.Join(world, "etc", "ssl"), 0o755); err != nil {
				t.Fatal(err)
			}
			writePublic(t, filepath.Join(world, "etc", "ssl", "openssl.cnf"), opensslAnyVersion)
		}
		runSendmail(t, world, config, files)
	}
}

const (
	sendmailListen = "DAEMON_OPTIONS(`Name=MTA,Addr=%s,Port=%d')\n"
	sendmailTLS    = "define(`confSERVER_CERT', `/etc/mail/chain.pem')\ndefine(`confSERVER_KEY', `/etc/mail/chain.pem')\n" +
		"define(`confCACERT', `/etc/mail/chain.pem')\ndefine(`confCACERT_PATH', `/etc/ssl/certs')\n"
	// sendmailKeep gives all mail to one program, without a line of From.
	sendmailKeep = "MAILER_DEFINITIONS\n" +
		"Mkeep, P=%[1]s, F=DFMln8, S=0, R=0, E=\\n, L=0, U=root, T=DNS/RFC822/X-Unix, A=keep $u\n" +
		"LOCAL_RULE_0\n" +
		"R$+ < @ $+ > $*\t$#keep $: $1\n"
	opensslAnyVersion = `openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = default
[default]
MinProtocol = TLSv1
CipherString = ALL:@SECLEVEL=0
`
)

func TestRealSendmailAsClient(t *testing.T) {
	testSmarthostClient(t, func(t *testing.T, dir string, listen netip.AddrPort, relay smarthost) {
		certificate, err := os.ReadFile(relay.certificate)
		if err != nil {
			t.Fatal(err)
		}
		runSendmail(t, filepath.Join(dir, "world"), fmt.Sprintf(sendmailSmarthost, listen.Addr(), listen.Port(), relay.port),
			map[string]string{
				"relay.pem": string(certificate),
				"access": fmt.Sprintf("AuthInfo:127.0.0.1\t\"U:%s\" \"P:%s\" \"M:PLAIN\"\n", relay.user, relay.key) +
					"TLS_Srv:127.0.0.1\tVERIFY\nConnect:127\tRELAY\n",
			})
	})
}

// A smarthost without the name of a mailer would be taken for sendmail itself.
const sendmailSmarthost = "define(`confCACERT', `/etc/mail/relay.pem')\n" +
	"define(`confCACERT_PATH', `/etc/ssl/certs')\n" +
	"define(`SMART_HOST', `relay:[127.0.0.1]')\n" +
	"define(`RELAY_MAILER_ARGS', `TCP $h %[3]s')\n" +
	"DAEMON_OPTIONS(`Name=MTA,Addr=%[1]s,Port=%[2]d')\n" +
	"MAILER(smtp)\n"

// runSendmail runs sendmail in a world until the test ends, with additions to
// its configuration and with files in /etc/mail, of which access becomes a map.
func runSendmail(t *testing.T, world, config string, files map[string]string) {
	t.Helper()
	syslog(t, world)
	addUsers(t, world, "smmta", "smmsp")
	mail := filepath.Join(world, "etc", "mail")
	for _, folder := range []string{mail, filepath.Join(world, "var", "spool", "mqueue"), filepath.Join(world, "var", "lib", "sendmail")} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(mail, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		// A key that others can read is none to it.
		if err := os.WriteFile(filepath.Join(mail, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writePublic(t, filepath.Join(mail, "sendmail.mc"), sendmailConfig+config)
	cf := succeed(t, asInstalled(t, "sendmail", world, "m4", "/etc/mail/sendmail.mc"))
	writePublic(t, filepath.Join(mail, "sendmail.cf"), cf)
	// The map is made from outside, for /etc cannot be written in the world.
	access, err := os.Open(filepath.Join(mail, "access"))
	if err != nil {
		t.Fatal(err)
	}
	defer access.Close()
	makemap := asInstalled(t, "sendmail", world, "/usr/libexec/sendmail/makemap", "hash", filepath.Join(mail, "access"))
	makemap.Stdin = access
	succeed(t, makemap)
	cmd := asInstalled(t, "sendmail", world, "/usr/libexec/sendmail/sendmail", "-bD", "-q1s")
	runServer(t, cmd, func() error { return cmd.Process.Kill() })
}

const sendmailConfig = "include(`/usr/share/sendmail/cf/m4/cf.m4')\n" +
	"OSTYPE(debian)\n" +
	"define(`confDOMAIN_NAME', `sendmail.test')\n" +
	"define(`confDONT_PROBE_INTERFACES', `true')\n" +
	"define(`confTO_IDENT', `0')\n" +
	"define(`confQUEUE_LA', `1000')\ndefine(`confREFUSE_LA', `1000')\n" + // a busy machine is no reason
	"define(`confPID_FILE', `/run/sendmail.pid')\n" +
	"FEATURE(`access_db', `hash -T<TMPF> /etc/mail/access')\n" +
	"FEATURE(nocanonify)\n" +
	"FEATURE(no_default_msa)\n" +
	"FEATURE(accept_unresolvable_domains)\n" +
	"FEATURE(accept_unqualified_senders)\n"
