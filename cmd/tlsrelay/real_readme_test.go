//go:build realclients

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// fence is a fenced block of a Markdown text, with its language.
var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// The commands of the README do what it says, in the order in which a reader
// types them: every block marked sh runs, and a block marked json right after
// one is what it prints. Only the addresses are exchanged.
func TestRealReadme(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	host := r.world.Host(t, "mx.example.com")
	blocks := fence.FindAllStringSubmatch(string(text), -1)
	var typed strings.Builder
	typed.WriteString("set -eu\n")
	promised := map[int]string{} // by the number of the sh block
	n := 0
	for i, b := range blocks {
		if b[1] != "sh" {
			continue
		}
		fmt.Fprintf(&typed, "echo '<<block %d>>'\n%s\n", n, r.atThisRig(b[2]))
		if i+1 < len(blocks) && blocks[i+1][1] == "json" {
			promised[n] = blocks[i+1][2]
		}
		n++
	}
	if n < 3 || len(promised) == 0 {
		t.Fatalf("the README has %d sh blocks and %d answers to them", n, len(promised))
	}
	out := succeed(t, r.shell(typed.String()))
	for number, want := range promised {
		_, got, _ := strings.Cut(out, fmt.Sprintf("<<block %d>>\n", number))
		got, _, _ = strings.Cut(got, "<<block")
		if !sameJSON(t, got, want) {
			t.Errorf("block %d printed %s, the README says %s", number, got, want)
		}
	}
	m := host.Await(t, 1)[0]
	if m.TLSVersion == 0 || m.To[0].Address != "someone@example.com" || header(m.Body, "Subject") != "first" ||
		header(m.Body, "From") != "you@example.org" || !strings.HasSuffix(string(m.Body), "\r\n\r\nHello over TLS.\r\n") {
		t.Errorf("the first message came as %+v\n%s", m, m.Body)
	}
	if _, settings := r.call("GET", "/v3/user/settings/enforced_tls", ""); !strings.Contains(settings, `"require_tls":true`) {
		t.Errorf("after the README the settings are %s", settings)
	}
}

// The lines that the first start prints work when they are copied.
func TestRealWelcome(t *testing.T) {
	r := newRig(t)
	host := r.world.Host(t, "mx.example.com")
	var typed strings.Builder
	typed.WriteString("set -eu\n")
	for line := range strings.Lines(firstKey{r.key, filepath.Join("data", keyFile)}.welcome(r.app, true)) {
		if command, ok := strings.CutPrefix(line, "    "); ok && strings.TrimSpace(line) != r.key {
			typed.WriteString(command)
		}
	}
	if n := strings.Count(typed.String(), "curl "); n != 2 {
		t.Fatalf("%d commands in\n%s", n, typed.String())
	}
	out := succeed(t, r.shell(typed.String()))
	if !sameJSON(t, out, `{"require_tls":true,"require_valid_cert":false,"version":1.2}`) {
		t.Errorf("printed %s", out)
	}
	m := host.Await(t, 1)[0]
	if header(m.Body, "Subject") != "first" || !strings.HasSuffix(string(m.Body), "\r\n\r\nHello over TLS.\r\n") {
		t.Errorf("the first message came as\n%s", m.Body)
	}
}

// atThisRig exchanges the addresses of `make run` for this rig's.
func (r *rig) atThisRig(commands string) string {
	return strings.NewReplacer(
		"127.0.0.1:2525", "127.0.0.1:"+r.submissionPort(),
		"127.0.0.1:8025", r.app.api.addr(),
		"127.0.0.1:8026", r.app.admin.addr(),
	).Replace(commands)
}

// shell runs commands in a folder where bin/tlsrelay is this program and
// data/first-api-key has the rig's key, with the rig's world for its network.
func (r *rig) shell(commands string) *exec.Cmd {
	t := r.t.(*testing.T)
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"bin", "data"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeSecret(filepath.Join(dir, "data", keyFile), r.key); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "bin", "tlsrelay")); err != nil {
		t.Fatal(err)
	}
	d := r.config.Delivery
	cmd := realCommand(t, []string{
		"TLSRELAY_TEST_RUN_MAIN=1",
		"TLSRELAY_ADMIN_URL=http://" + r.app.admin.addr(),
		"TLSRELAY_DELIVERY_RESOLVER=" + d.Resolver,
		fmt.Sprintf("TLSRELAY_DELIVERY_PORT=%d", d.Port),
		"TLSRELAY_DELIVERY_ROOT_CA_FILE=" + d.RootCAFile,
		"TLSRELAY_DELIVERY_ALLOW_PRIVATE_ADDRESSES=true",
	}, "sh", "-c", commands)
	cmd.Dir = dir
	return cmd
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	for i, text := range []string{a, b} {
		if err := json.Unmarshal([]byte(text), []*any{&x, &y}[i]); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	return reflect.DeepEqual(x, y)
}
