//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tlsrelay/relay/certificate"
)

// postfixProcess is Postfix in the relay's place: its own configuration and
// queue, the system's programs.
type postfixProcess struct {
	dir, addr string
	master    *exec.Cmd
	ended     chan error
}

// mainCF leaves everything at its default but what ties Postfix to this
// world; what it need not do here (name lookups, AUTH), and
// that it may reuse TLS connections, is in its favour.
const mainCF = `compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
myhostname = postfix.example
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
maillog_file = %[1]s/log
maillog_file_prefixes = %[1]s
transport_maps = texthash:%[1]s/transport
smtpd_tls_security_level = may
smtpd_tls_cert_file = %[2]s
smtpd_tls_key_file = %[3]s
smtp_tls_security_level = may
smtp_tls_CAfile = %[1]s/ca.pem
smtp_tls_session_cache_database = btree:${data_directory}/smtp_scache
smtp_tls_connection_reuse = yes
`

// masterCF is Debian's, outside a chroot and without what is not used here.
const masterCF = `%s inet n - n - - smtpd
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp      unix  - - n - - smtp
relay     unix  - - n - - smtp
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
local     unix  - n n - - local
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
tlsproxy  unix  - - n - 0 tlsproxy
postlog   unix-dgram n - n - 1 postlogd
`

// startPostfix puts a fresh Postfix into the rig.
func (g *rig) startPostfix(ctx context.Context, s scenario) error {
	if os.Getuid() != 0 {
		return errors.New("-postfix: Postfix changes users, so it must be started by root")
	}
	programs, err := exec.Command("postconf", "-dh", "daemon_directory").Output()
	if err != nil {
		return fmt.Errorf("-postfix: Postfix is not installed: %w", err)
	}
	dir, err := os.MkdirTemp(g.o.dir, "postfix-")
	if err != nil {
		return err
	}
	p := &postfixProcess{dir: dir, ended: make(chan error, 1)}
	if err := p.configure(g, s); err != nil {
		return err
	}
	p.master = exec.Command(filepath.Join(strings.TrimSpace(string(programs)), "master"), "-d", "-c", dir)
	p.master.Env = append(os.Environ(), "MAIL_CONFIG="+dir)
	p.master.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it signals its whole group when it ends
	if err := p.master.Start(); err != nil {
		return err
	}
	go func() { p.ended <- p.master.Wait() }()
	g.subject = p
	return await(ctx, p.ended, filepath.Join(dir, "log"), p.ready)
}

func (p *postfixProcess) configure(g *rig, s scenario) error {
	var err error
	if p.addr, err = freeAddress(); err != nil {
		return err
	}
	cert, key, err := certificate.SelfSigned(p.dir, "postfix.example")
	if err != nil {
		return err
	}
	var routes strings.Builder
	for i, d := range s.domains() {
		host, port, _ := net.SplitHostPort(g.world.Hosts[i%len(g.world.Hosts)])
		fmt.Fprintf(&routes, "%s smtp:[%s]:%s\n", d, host, port)
	}
	for name, text := range map[string]string{
		"main.cf": fmt.Sprintf(mainCF, p.dir, cert, key), "master.cf": fmt.Sprintf(masterCF, p.addr),
		"transport": routes.String(), "ca.pem": string(g.world.CA),
	} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Chmod(p.dir, 0o755), os.MkdirAll(filepath.Join(p.dir, "queue"), 0o755)); err != nil {
		return err
	}
	if out, err := exec.Command("postfix", "-c", p.dir, "check").CombinedOutput(); err != nil { // makes its folders
		return fmt.Errorf("postfix check: %w: %s", err, out)
	}
	return nil
}

func (p *postfixProcess) ready() bool {
	c, err := net.Dial("tcp", p.addr)
	if err == nil {
		c.Close()
	}
	return err == nil
}

func (p *postfixProcess) name() string                 { return "postfix" }
func (p *postfixProcess) submission() (string, string) { return p.addr, "" }
func (p *postfixProcess) cpu() time.Duration           { return cpuOfTree(p.master.Process.Pid) }
func (p *postfixProcess) resetPeak()                   {}

// peak is the memory of all processes now, what they share counted once:
// peaks of single processes do not add up.
func (p *postfixProcess) peak() (sum int64) {
	for _, s := range tree(p.master.Process.Pid) {
		sum += share(s.PID)
	}
	return sum
}

// stop ends Postfix; it is told to, so how it ends tells nothing.
func (p *postfixProcess) stop() error {
	p.master.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(stopLimit, func() { p.master.Process.Kill() })
	defer timer.Stop()
	<-p.ended
	return nil
}
