package events

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestLogLine(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	e := goldenEvents()["blocked_cert"]
	e.Age = 90e9
	zap.New(core).Info("event", zap.Inline(&e))
	got := logs.All()[0].ContextMap()
	for key, want := range map[string]any{
		"event": "bounce", "type": "blocked", "reason": "cert_expired", "status": "5.7.5", "id": testID,
		"email": "ann@example.com", "account": "7", "host": "mx1.example.com", "tls": "1.3", "cert_err": true,
		"recipient": 3, "reply": TLSBlocked, "event_id": e.ID,
	} {
		if got[key] != want {
			t.Errorf("%s: %v, want %v", key, got[key], want)
		}
	}
	for _, absent := range []string{"attempt"} {
		if v, ok := got[absent]; ok {
			t.Errorf("%s: %v in a bounce", absent, v)
		}
	}
}

// A session in clear says so; where there was none, nothing is said of TLS.
func TestLogLineTellsClear(t *testing.T) {
	for name, want := range map[string]any{
		"delivered_clear": "none", "blocked_tls": "none", "delivered": "1.3",
		"blocked_no_session": nil, "deferred_no_session": nil, "processed": nil,
	} {
		core, logs := observer.New(zap.InfoLevel)
		e := goldenEvents()[name]
		zap.New(core).Info("event", zap.Inline(&e))
		if got := logs.All()[0].ContextMap()["tls"]; got != want {
			t.Errorf("%s: tls is %v, want %v", name, got, want)
		}
	}
}

// The origin is told in the log alone.
func TestLogLineTellsOrigin(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	e := goldenEvents()["processed"]
	stored := e.AppendJSON(nil)
	e.Origin = &Origin{From: "<>", Client: "192.0.2.7", Key: "kid", Size: 1234, Report: true, ReportOf: testID}
	zap.New(core).Info("event", zap.Inline(&e))
	got := logs.All()[0].ContextMap()
	for key, want := range map[string]any{
		"from": "<>", "client": "192.0.2.7", "key": "kid", "size": int64(1234), "report": true, "report_of": testID,
	} {
		if got[key] != want {
			t.Errorf("%s: %v, want %v", key, got[key], want)
		}
	}
	inStore, err := json.Marshal(e)
	if err != nil || bytes.Contains(inStore, []byte("192.0.2.7")) || !bytes.Equal(e.AppendJSON(nil), stored) {
		t.Errorf("%v: %s", err, inStore)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := NewMetrics(reg)
	for _, e := range goldenEvents() {
		m.Count(e)
	}
	odd := goldenEvents()["blocked_tls"]
	odd.Reason, odd.TLSVersion = "made-up", "9.9"
	m.Count(odd)
	want := `
# HELP tlsrelay_blocks_total Recipients blocked (by TLS demands, by hosts for the sake of message or sender, by expiry or an operator), by reason.
# TYPE tlsrelay_blocks_total counter
tlsrelay_blocks_total{reason="cert_expired"} 1
tlsrelay_blocks_total{reason="no_mail_host"} 1
tlsrelay_blocks_total{reason="other"} 1
tlsrelay_blocks_total{reason="starttls_not_offered"} 1
# HELP tlsrelay_events_total Events by kind; bounces also by type.
# TYPE tlsrelay_events_total counter
tlsrelay_events_total{kind="bounce",type="blocked"} 4
tlsrelay_events_total{kind="bounce",type="bounce"} 1
tlsrelay_events_total{kind="deferred",type=""} 2
tlsrelay_events_total{kind="delivered",type=""} 3
tlsrelay_events_total{kind="processed",type=""} 2
# HELP tlsrelay_recipients_total Outcomes of attempts per recipient (delivered, deferred, bounce, blocked), by TLS version of the session; none: in clear, or no session.
# TYPE tlsrelay_recipients_total counter
tlsrelay_recipients_total{outcome="blocked",tls="1.3"} 1
tlsrelay_recipients_total{outcome="blocked",tls="none"} 2
tlsrelay_recipients_total{outcome="blocked",tls="other"} 1
tlsrelay_recipients_total{outcome="bounce",tls="1.3"} 1
tlsrelay_recipients_total{outcome="deferred",tls="1.3"} 1
tlsrelay_recipients_total{outcome="deferred",tls="none"} 1
tlsrelay_recipients_total{outcome="delivered",tls="1.3"} 2
tlsrelay_recipients_total{outcome="delivered",tls="none"} 1
`
	if got := text(t, reg, "tlsrelay_delivery_age_seconds"); got != strings.TrimPrefix(want, "\n") {
		t.Errorf("got\n%swant%s", got, want)
	}
}

// text renders the metrics of reg that have counted something, without those of
// one name.
func text(t *testing.T, reg prometheus.Gatherer, without string) string {
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		if f.GetName() == without {
			continue
		}
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	var counted strings.Builder
	for line := range strings.Lines(b.String()) {
		if !strings.HasSuffix(line, " 0\n") {
			counted.WriteString(line)
		}
	}
	return counted.String()
}

// No series is born when it first counts: it would have no increase then.
func TestEverySeriesFromTheStart(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := NewMetrics(reg)
	series := func() (all []string) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, one := range f.Metric {
				all = append(all, f.GetName()+" "+fmt.Sprint(one.Label))
			}
		}
		return all
	}
	before := series()
	for _, kind := range []Kind{Processed, Deferred, Delivered} {
		for _, v := range []string{"", "1.0", "1.1", "1.2", "1.3", "1.4"} {
			m.Count(Event{Kind: kind, TLSVersion: v})
		}
	}
	for _, typ := range []BounceType{TypeBounce, TypeBlocked} {
		for _, r := range append(Reasons(), "of a later version") {
			for _, v := range []string{"", "1.0", "1.1", "1.2", "1.3", "1.4"} {
				m.Count(Event{Kind: Bounce, Type: typ, Reason: r, TLSVersion: v})
			}
		}
	}
	if after := series(); !slices.Equal(before, after) {
		t.Errorf("of %d series, %d were there at the start", len(after), len(before))
	}
}

// A reason added to reason.go and forgotten in label would be counted as
// "other".
func TestEveryReasonHasItsLabel(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(file, func(node ast.Node) bool {
		lit, ok := node.(*ast.BasicLit)
		if !ok {
			return true
		}
		word, err := strconv.Unquote(lit.Value)
		if err != nil {
			t.Fatal(err)
		}
		n++
		if got := Reason(word).label(); word != "" && got != word {
			t.Errorf("%q is counted as %q", word, got)
		}
		return true
	})
	if n < 40 {
		t.Errorf("only %d reasons found", n)
	}
}
