package configs

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The systemd unit starts the relay again whatever ended it, sets nothing that does
// not exist, and lends to it every credential that it speaks of; the lines to be
// uncommented count as well.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile("tlsrelay.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := string(text)
	for _, line := range []string{"Restart=always", "StartLimitIntervalSec=0", "ExecReload=/bin/kill -HUP $MAINPID", "NoNewPrivileges=yes"} {
		if !strings.Contains(unit, "\n"+line+"\n") {
			t.Errorf("the unit lacks %s", line)
		}
	}
	lent := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#?LoadCredential=([\w.-]+):/`).FindAllStringSubmatch(unit, -1) {
		lent[m[1]] = true
	}
	settings := regexp.MustCompile(`(?m)^#?Environment=(\w+)=(.*)$`).FindAllStringSubmatch(unit, -1)
	if len(settings) < 5 || len(lent) < 4 {
		t.Fatalf("%d settings, credentials %v", len(settings), lent)
	}
	for _, s := range settings {
		_, warnings, _ := Inspect("", []string{s[1] + "=x"})
		if said := warnings.Error(); strings.Contains(said, "sets nothing") {
			t.Error(said)
		}
		if name, ok := strings.CutPrefix(s[2], "%d/"); ok && !lent[name] {
			t.Errorf("%s: no credential %s", s[1], name)
		}
	}
}
