package configs

import (
	"os"
	"testing"

	"go.yaml.in/yaml/v4"
)

// Every alert has a case in which it fires and one in which it does not.
// `make alerts` runs them.
func TestEveryAlertHasItsCases(t *testing.T) {
	read := func(name string, into any) {
		t.Helper()
		text, err := os.ReadFile(name)
		if err == nil {
			err = yaml.Unmarshal(text, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert string }
		}
	}
	read("alerts.yml", &rules)
	var cases struct {
		RuleFiles []string `yaml:"rule_files"`
		Tests     []struct {
			Alerts []struct {
				Name string `yaml:"alertname"`
				Want []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	read("alerts_test.yml", &cases)
	fires, rests, known := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, c := range cases.Tests {
		for _, a := range c.Alerts {
			fires[a.Name] = fires[a.Name] || len(a.Want) > 0
			rests[a.Name] = rests[a.Name] || len(a.Want) == 0
		}
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			known[r.Alert] = true
			if !fires[r.Alert] || !rests[r.Alert] {
				t.Errorf("%s: a case in which it fires: %t, and one in which it does not: %t", r.Alert, fires[r.Alert], rests[r.Alert])
			}
		}
	}
	if len(known) < 10 || len(cases.RuleFiles) != 1 || cases.RuleFiles[0] != "alerts.yml" {
		t.Errorf("%d alerts, cases for %v", len(known), cases.RuleFiles)
	}
	for name := range fires {
		if !known[name] {
			t.Errorf("there is no alert %s", name)
		}
	}
}
