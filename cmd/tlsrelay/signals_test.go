package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tlsrelay/configs"
	"tlsrelay/policy/account"
	"tlsrelay/relay/relaytest"
)

// lines gives the lines of a log that begin with words, and the last of all.
func (p *process) lines(words string) (found []map[string]any, last map[string]any) {
	p.t.Helper()
	for line := range strings.Lines(p.logged()) {
		last = nil
		if json.Unmarshal([]byte(line), &last) != nil {
			continue
		}
		if msg, _ := last["msg"].(string); strings.HasPrefix(msg, words) {
			found = append(found, last)
		}
	}
	return found, last
}

// pair is a certificate in files, as another one in turn.
type pair struct{ cert, key string }

func (p pair) write(t *testing.T, ca *relaytest.CA, names ...string) (serial string) {
	t.Helper()
	c, err := ca.Issue(relaytest.Cert{Names: names})
	if err != nil {
		t.Fatal(err)
	}
	var chain []byte
	for _, der := range c.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string][]byte{p.cert: chain, p.key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf.SerialNumber.String()
}

// shows gives the serial number of the certificate that a listener shows.
func shows(t *testing.T, addr string, starttls bool) string {
	t.Helper()
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if starttls {
		k := &talker{t, raw, bufio.NewReader(raw)}
		k.hear("220")
		k.say("EHLO app.test", "250")
		k.say("STARTTLS", "220")
	}
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// SIGHUP reads the certificates of all listeners again, tells it in one line, and
// touches nothing else: conversations go on, and so does the process, whenever the
// signal comes.
func TestHangup(t *testing.T) {
	w := relaytest.Start(t)
	c := worldConfig(t, w)
	trusting(&c)
	dir := t.TempDir()
	pairs := map[string]pair{}
	for _, name := range []string{"submission", "api", "admin"} {
		pairs[name] = pair{filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")}
		pairs[name].write(t, w.CA, "relay.example")
	}
	c.Submission.CertFile, c.Submission.KeyFile = pairs["submission"].cert, pairs["submission"].key
	c.API.CertFile, c.API.KeyFile = pairs["api"].cert, pairs["api"].key
	c.Admin.CertFile, c.Admin.KeyFile = pairs["admin"].cert, pairs["admin"].key
	p := startProcess(t, configFile(t, c), "TLSRELAY_BOOTSTRAP_KEY="+account.NewSecret()).up()

	busy := talk(t, p.submission)
	busy.say("EHLO app.test", "250")
	busy.say("MAIL FROM:<app@sender.test>", "250")
	fresh := map[string]string{}
	for name, files := range pairs {
		fresh[name] = files.write(t, w.CA, "relay.example")
	}
	p.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "the certificates are read again", func() bool { found, _ := p.lines("SIGHUP"); return len(found) == 1 })
	found, _ := p.lines("SIGHUP")
	if read, _ := found[0]["read"].([]any); len(read) != 3 || found[0]["level"] != "info" {
		t.Errorf("the line is %v", found[0])
	}
	for name, addr := range map[string]string{"submission": p.submission, "api": p.api, "admin": p.admin} {
		if got := shows(t, addr, name == "submission"); got != fresh[name] {
			t.Errorf("%s shows %s and not the new certificate", name, got)
		}
	}

	// Files that do not fit, or are gone, change nothing.
	if err := os.Remove(pairs["api"].key); err != nil {
		t.Fatal(err)
	}
	p.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "what cannot be read is told", func() bool { found, _ = p.lines("SIGHUP"); return len(found) == 2 })
	if kept, _ := found[1]["kept"].([]any); len(kept) != 1 || kept[0] != pairs["api"].cert || found[1]["level"] != "warn" {
		t.Errorf("the line is %v", found[1])
	}
	if got := shows(t, p.api, false); got != fresh["api"] {
		t.Errorf("the API shows %s", got)
	}

	// What was begun before goes on, during the drain, too.
	busy.say("RCPT TO:<a@good.test>", "250")
	p.cmd.Process.Signal(syscall.SIGTERM)
	eventually(t, "the relay drains", func() bool { found, _ := p.lines("stopping"); return len(found) == 1 })
	p.cmd.Process.Signal(syscall.SIGHUP)
	busy.say("DATA", "354")
	busy.say("Subject: x\r\n\r\nx\r\n.", "250")
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.logged())
	}
	if _, last := p.lines(""); last["msg"] != "stopped" {
		t.Errorf("the last line is %v", last)
	}
}

// Warnings of a configuration are told where it is checked, which ends well, and at
// the start.
func TestWarningsAreTold(t *testing.T) {
	w := relaytest.Start(t)
	c := worldConfig(t, w)
	c.Hostname = "relay"
	file := configFile(t, c)
	const words = `"relay" is not a fully qualified name`
	got := program(t, []string{"TLSRELAY_DELIVRY_PORT=x"}, "config", "check", file)
	if got.code != 0 || got.stdout != "ok\n" || !strings.Contains(got.stderr, "warning: "+file+":1: hostname: "+words) ||
		!strings.Contains(got.stderr, "TLSRELAY_DELIVERY_PORT is the nearest") {
		t.Errorf("%+v", got)
	}
	p := startProcess(t, file, "TLSRELAY_BOOTSTRAP_KEY="+account.NewSecret(), "TLSRELAY_DELIVRY_PORT=x").up()
	found, _ := p.lines("configuration: ")
	if len(found) != 2 || found[1]["key"] != "hostname" || found[1]["line"] != 1.0 || found[1]["level"] != "warn" {
		t.Errorf("%v", found)
	}
	p.signal(syscall.SIGTERM)
}

// The first key is in a file that its owner alone can read, and neither in the
// output, which may go to a journal, nor in the log. It works, and lies there only
// once.
func TestFirstKey(t *testing.T) {
	w := relaytest.Start(t)
	c := worldConfig(t, w)
	file := configFile(t, c)
	p := startProcess(t, file).up()
	name := filepath.Join(c.DataDir, "first-api-key")
	info, err := os.Stat(name)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	key := strings.TrimSpace(string(text))
	if said := p.printed() + p.logged(); strings.Contains(said, "SG.") || !strings.Contains(p.printed(), name) {
		t.Errorf("the relay says\n%s", said)
	}
	req, err := http.NewRequest("GET", "http://"+p.api+"/v3/scopes", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("the key in the file: %s", res.Status)
	}
	p.signal(syscall.SIGTERM)
	p = startProcess(t, file).up()
	if again, err := os.ReadFile(name); err != nil || !bytes.Equal(again, text) || p.printed() != "" {
		t.Errorf("the next start: %v\n%s", err, p.printed())
	}
	p.signal(syscall.SIGTERM)

	// Where the operator brings a key, there is no file.
	c.DataDir = filepath.Join(t.TempDir(), "data")
	p = startProcess(t, configFile(t, c), "TLSRELAY_BOOTSTRAP_KEY="+account.NewSecret()).up()
	if _, err := os.Stat(filepath.Join(c.DataDir, "first-api-key")); !os.IsNotExist(err) || p.printed() != "" {
		t.Errorf("beside a key that was brought: %v\n%s", err, p.printed())
	}
	p.signal(syscall.SIGTERM)
}

// readiness asks a relay whether it takes mail.
func readiness(t testing.TB, addr string) (code int, parts map[string]string) {
	t.Helper()
	res, err := http.Get("http://" + addr + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil {
		err = json.Unmarshal(text, &parts)
	}
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return res.StatusCode, parts
}

// A relay that answers 452 to all mail is not ready, and says which part it is.
func TestNotReadyWithoutRoom(t *testing.T) {
	r := newRig(t, trusting)
	code, parts := readiness(t, r.app.admin.addr())
	if code != 200 || parts["status"] != "ready" || parts["store"] != "ok" || parts["disk"] != "ok" || parts["submission"] != "ok" ||
		!strings.HasPrefix(parts["dnssec"], "off: ") {
		t.Errorf("%d %v", code, parts)
	}
	full := newRig(t, trusting, func(c *configs.Config) { c.MinFreeDisk = 1 << 62 })
	k := talk(t, full.app.submission.Addrs()[0].String())
	last := ""
	for _, line := range []string{"EHLO app.test", "MAIL FROM:<app@sender.test>", "RCPT TO:<a@good.test>", "DATA", "Subject: x\r\n\r\nx\r\n."} {
		if last = k.say(line, ""); last[0] > '3' {
			break
		}
	}
	if !strings.HasPrefix(last, "452 4.3.1") {
		t.Errorf("submission says %q", last)
	}
	code, parts = readiness(t, full.app.admin.addr())
	if code != 503 || parts["status"] != "not ready" || parts["error"] != "not ready: disk" || parts["store"] != "ok" ||
		!strings.Contains(parts["disk"], "min_free_disk") {
		t.Errorf("%d %v", code, parts)
	}
	k.say("QUIT", "221")
	res, err := http.Get("http://" + full.app.admin.addr() + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if page, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(page), "disk: less than min_free_disk") {
		t.Errorf("%v\n%s", err, page)
	}
}

// The operator's listener may be asked by other names, once they are in admin.hosts,
// or with the token; and over TLS.
func TestAdminHostsAndTLS(t *testing.T) {
	w := relaytest.Start(t)
	files := pair{filepath.Join(t.TempDir(), "crt"), filepath.Join(t.TempDir(), "key")}
	files.write(t, w.CA, "tlsrelay.mail.svc")
	r := newRig(t, func(c *configs.Config) {
		c.Admin.Token, c.Admin.Hosts = "s3cret", []string{"tlsrelay.mail.svc"}
		c.Admin.CertFile, c.Admin.KeyFile = files.cert, files.key
	})
	if _, err := command("https://"+r.app.admin.addr(), "account", "list"); err == nil || !strings.Contains(err.Error(), "is not trusted here") {
		t.Errorf("a command that does not know the certificate: %v", err)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: w.CA.Pool(), ServerName: "tlsrelay.mail.svc"},
	}}
	for _, c := range []struct {
		host, path, token string
		want              int
	}{
		{"tlsrelay.mail.svc:8026", "/metrics", "", 401},
		{"tlsrelay.mail.svc:8026", "/metrics", "s3cret", 200},
		{"elsewhere.test", "/metrics", "", 421},
		{"elsewhere.test", "/metrics", "wrong", 421},
		{"elsewhere.test", "/metrics", "s3cret", 200},
		{"elsewhere.test", "/readyz", "", 200},
	} {
		req, err := http.NewRequest("GET", "https://"+r.app.admin.addr()+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		if c.token != "" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != c.want {
			t.Errorf("%+v: %s", c, res.Status)
		}
	}
}
