package deliver

import (
	"context"
	"slices"
	"testing"

	"tlsrelay/policy"
	"tlsrelay/relay/relaytest"
)

// elsewhere are the tests of rows that one host with one script cannot show in
// all three columns.
var elsewhere = map[string]func(*testing.T){
	"C7":  TestCertificates,
	"C8r": TestTicketsThatBreakSessions,
	"C9":  TestRequireTLS,
	"C12": TestStartTLSFirst,
}

// The matrix plays the decision table: each row has a line, and what a line
// expects is what its row says.
func TestMatrixIsTheTable(t *testing.T) {
	played := map[string]bool{}
	for _, l := range matrix(t, relaytest.Start(t)) {
		for class, c := range map[policy.Class]cell{
			policy.ClassOpportunistic: l.o, policy.ClassEncrypt: l.t, policy.ClassValid: l.v,
		} {
			played[c.row] = true
			if !slices.ContainsFunc(policy.Rows(), func(r policy.Row) bool { return says(r, class, c) }) {
				t.Errorf("%s/%s: no row says %+v", l.name, class, c)
			}
		}
	}
	known := map[string]bool{}
	for _, r := range policy.Rows() {
		known[r.ID] = true
		if !played[r.ID] && elsewhere[r.ID] == nil {
			t.Errorf("row %s, %s: no line of the matrix plays it", r.ID, r.When)
		}
	}
	for id := range elsewhere {
		if !known[id] {
			t.Errorf("there is no row %s", id)
		}
	}
}

// says reports whether a row means what a line expects in a column.
func says(r policy.Row, class policy.Class, want cell) bool {
	c := r.Cell(class)
	if r.ID != want.row || c.Class != want.class || !slices.Contains(r.Findings(), policy.Finding{Class: want.class, Reason: want.reason}) {
		return false
	}
	switch want.fate {
	case "tls":
		return c.Mail == policy.Encrypted
	case "clear":
		return c.Mail == policy.InClear || c.Mail == policy.ClearLater
	case "block":
		return c.Mail == policy.NoMail && c.Class == policy.Conclusive
	}
	return c.Mail == policy.NoMail && c.Class != policy.Conclusive
}

// A probe explains its rows, of each connection and of the host.
func TestProbeTellsInWords(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", relaytest.Script{NoTLS: true})
	r := engine(t, w, routeTo(h)).Probe(context.Background(), "example.test", modeT)
	const words = "offers no STARTTLS"
	if len(r.Hosts) != 1 || r.Hosts[0].Means != words || len(r.Hosts[0].Connections) != 1 || r.Hosts[0].Connections[0].Means != words {
		t.Errorf("%+v", r.Hosts)
	}
}
