//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
)

// fact is one number that is no row.
type fact struct {
	Name  string
	Value float64
	Unit  string
}

// report gathers what was measured and tells it.
type report struct {
	o     options
	Rows  []row
	Facts []fact
}

// add takes a row, and tells those who wait for the table that there is progress.
func (r *report) add(w row) {
	r.Rows = append(r.Rows, w)
	fmt.Fprintf(os.Stderr, "%s %s: %.0f msg/s, %.0f µs\n", w.Subject, w.Scenario, w.PerSecond, w.CPU)
}

func (r *report) fact(name string, value float64, unit string) {
	r.Facts = append(r.Facts, fact{name, value, unit})
	fmt.Fprintf(os.Stderr, "%s: %.4g %s\n", name, value, unit)
}

// finish writes everything out.
func (r *report) finish(w io.Writer) error {
	if r.o.json != "-" {
		r.table(w)
		r.compare(w)
	}
	if r.o.bench {
		r.lines(w)
	}
	if r.o.json == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if r.o.json == "-" {
		_, err = w.Write(text)
		return err
	}
	return os.WriteFile(r.o.json, text, 0o644)
}

func (r *report) table(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "SCENARIO\tSUBJECT\tMSGS\tMSG/S\tCPU µs\tGEN µs\tSINK µs\tPEAK MiB\tP50 ms\tP99 ms\tSYNCS\tCONNS\tHANDSHAKES\tRESUMED\tMSG/S/CONN\tTROUBLE\t")
	for _, x := range r.Rows {
		fmt.Fprintf(tw, "%s\t%s\t%d\t%.0f\t%s\t%.0f\t%.0f\t%s\t%.2f\t%.2f\t%s\t%d\t%d\t%d\t%.1f\t%s\t\n",
			x.Scenario, x.Subject, x.Messages, x.PerSecond, orDash(x.CPU, 0), x.GeneratorCPU, x.SinkCPU,
			orDash(float64(x.PeakBytes)/(1<<20), 0), x.P50, x.P99, orDash(x.Syncs, 3),
			x.Connections, x.Handshakes, x.Resumed, x.PerConnection, x.trouble())
	}
	tw.Flush()
	for _, f := range r.Facts {
		fmt.Fprintf(w, "%s: %.4g %s\n", f.Name, f.Value, f.Unit)
	}
	for _, x := range r.Rows {
		if x.SyncsBy != "" {
			fmt.Fprintln(w, "Syncs per message were counted as:", x.SyncsBy+".")
			break
		}
	}
	fmt.Fprintf(w, "CPU is user and system time per message; all processes share %d CPUs. CONNS, HANDSHAKES and RESUMED are what the hosts saw during the run; MSG/S/CONN is for each connection they had open at a time.\n", runtime.NumCPU())
}

func orDash(v float64, digits int) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, v)
}

// trouble is what must not happen.
func (x row) trouble() string {
	var all []string
	for _, t := range []struct {
		n    int
		what string
	}{{x.Lost, "not arrived"}, {x.Duplicates, "twice"}, {x.Refused, "refused"}} {
		if t.n > 0 {
			all = append(all, fmt.Sprintf("%d %s", t.n, t.what))
		}
	}
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(all, ", ")
}

// find gives the first row of a scenario and a subject.
func (r *report) find(scenario, subject string) (row, bool) {
	for _, x := range r.Rows {
		if x.Scenario == scenario && x.Subject == subject {
			return x, true
		}
	}
	return row{}, false
}

// compare tells the ratios to Postfix in the same run.
func (r *report) compare(w io.Writer) {
	for _, x := range r.Rows {
		p, ok := r.find(x.Scenario, "postfix")
		if x.Subject != "tlsrelay" || !ok {
			continue
		}
		fmt.Fprintf(w, "%s against Postfix: %.1f times the messages per second, %.1f times per connection, %.2f of the CPU, p99 %.2f of its\n",
			x.Scenario, x.PerSecond/p.PerSecond, x.PerConnection/p.PerConnection, x.CPU/p.CPU, x.P99/p.P99)
	}
}

// lines writes what benchstat reads.
func (r *report) lines(w io.Writer) {
	for _, x := range r.Rows {
		fmt.Fprintf(w, "BenchmarkRelay/%s/%s %d %.0f ns/op %.1f msg/s %.1f cpu-µs/op %.3f p50-ms %.3f p99-ms %d peak-B %.4f syncs/op\n",
			x.Subject, x.Scenario, x.Messages, 1e9/x.PerSecond, x.PerSecond, x.CPU, x.P50, x.P99, x.PeakBytes, x.Syncs)
	}
}
