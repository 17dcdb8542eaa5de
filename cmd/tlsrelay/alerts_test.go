package main

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// What an alert looks at is there when the relay has just started, and has counted
// nothing: rules that ask for what does not exist are silent, and a counter that
// is born at 1 has no increase.
func TestAlertsFindTheirSeries(t *testing.T) {
	o := startOwn(t)
	res, err := http.Get("http://" + o.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer res.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "configs", "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	selectors := regexp.MustCompile(`\b(tlsrelay_\w+|process_start_time_seconds)(?:\{([^}]*)\})?`).FindAllStringSubmatch(expressions(string(text)), -1)
	if len(selectors) < 12 {
		t.Fatalf("found %q", selectors)
	}
	for _, s := range selectors {
		found := false
		for _, m := range families[s[1]].GetMetric() {
			if !selects(s[2], m) {
				continue
			}
			found = true
			if c := m.GetCounter(); c != nil && c.GetValue() != 0 {
				t.Errorf("%s starts at %v", s[0], c.GetValue())
			}
		}
		if !found {
			t.Errorf("no series for %s at the start", s[0])
		}
	}
	o.signal(syscall.SIGTERM)
}

// expressions gives a file of alerting rules without what is for people.
func expressions(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if word := strings.TrimSpace(line); !strings.HasPrefix(word, "#") && !strings.HasPrefix(word, "summary:") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// selects applies matchers such as `class="suspicious", why!="deleted"`. The job is
// the scraper's to say.
func selects(matchers string, m *dto.Metric) bool {
	for _, one := range regexp.MustCompile(`(\w+)(=|!=)"([^"]*)"`).FindAllStringSubmatch(matchers, -1) {
		has := one[1] == "job" || slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool {
			return l.GetName() == one[1] && l.GetValue() == one[3]
		})
		if has != (one[2] == "=") {
			return false
		}
	}
	return true
}
