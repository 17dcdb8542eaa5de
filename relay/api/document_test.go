package api

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver"
)

// The document's form of a check is that of what the engine reports.
func TestReportIsAsDocumented(t *testing.T) {
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct{ Properties map[string]any }
			}
		}
	}
	if err := json.Unmarshal([]byte(document), &doc); err != nil {
		t.Fatal(err)
	}
	said := doc.Components.Schemas["Report"].Properties
	text, err := json.Marshal(deliver.Report{
		Ruling: policy.Block, Failure: &relay.Failure{Host: "mx"}, Demands: []policy.Demand{{}}, Hosts: []deliver.ProbedHost{{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]json.RawMessage
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	var failure map[string]any
	if err := json.Unmarshal(got["failure"], &failure); err != nil {
		t.Fatal(err)
	}
	if a, b := slices.Sorted(maps.Keys(said)), slices.Sorted(maps.Keys(got)); !slices.Equal(a, b) {
		t.Errorf("a report has %v, its document %v", b, a)
	}
	if a, b := slices.Sorted(maps.Keys(said["failure"].Properties)), slices.Sorted(maps.Keys(failure)); !slices.Equal(a, b) {
		t.Errorf("a failure has %v, its document %v", b, a)
	}
}
