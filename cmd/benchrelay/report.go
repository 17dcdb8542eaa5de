//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// fact is one number that is no row.
type fact struct {
	name  string
	value float64
	unit  string
}

// report gathers what was measured and tells it.
type report struct {
	rows  []row
	facts []fact
}

// add takes a row, and tells those who wait for the table that there is progress.
func (r *report) add(w row) {
	r.rows = append(r.rows, w)
	fmt.Fprintf(os.Stderr, "%s %s: %.0f msg/s, %.0f µs\n", w.Subject, w.Scenario, w.PerSecond, w.CPU)
}

func (r *report) fact(name string, value float64, unit string) {
	r.facts = append(r.facts, fact{name, value, unit})
	fmt.Fprintf(os.Stderr, "%s: %.4g %s\n", name, value, unit)
}

// finish writes everything out.
func (r *report) finish(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "SCENARIO\tSUBJECT\tMSGS\tMSG/S\tCPU µs\tGEN µs\tSINK µs\tPEAK MiB\tP50 ms\tP99 ms\tSYNCS\tCONNS\tHANDSHAKES\tRESUMED\tMSG/S/CONN\tTROUBLE\t")
	for _, x := range r.rows {
		fmt.Fprintf(tw, "%s\t%s\t%d\t%.0f\t%s\t%.0f\t%.0f\t%s\t%.2f\t%.2f\t%s\t%d\t%d\t%d\t%.1f\t%s\t\n",
			x.Scenario, x.Subject, x.Messages, x.PerSecond, orDash(x.CPU, 0), x.GeneratorCPU, x.SinkCPU,
			orDash(float64(x.PeakBytes)/(1<<20), 0), x.P50, x.P99, orDash(x.Syncs, 3),
			x.Connections, x.Handshakes, x.Resumed, x.PerConnection, x.trouble())
	}
	tw.Flush()
	for _, f := range r.facts {
		fmt.Fprintf(w, "%s: %.4g %s\n", f.name, f.value, f.unit)
	}
	r.compare(w)
	fmt.Fprintf(w, "CPU is user and system time per message; all processes share %d CPUs. SYNCS are flushes of the disk per message, whoever asked for them. CONNS, HANDSHAKES and RESUMED are what the hosts saw during the run; MSG/S/CONN is for each connection they had open at a time.\n", runtime.NumCPU())
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
	}{{x.Lost, "not arrived"}, {x.Duplicates, "twice"}} {
		if t.n > 0 {
			all = append(all, fmt.Sprintf("%d %s", t.n, t.what))
		}
	}
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(all, ", ")
}

// compare tells the ratios to Postfix in the same run.
func (r *report) compare(w io.Writer) {
	for _, x := range r.rows {
		i := slices.IndexFunc(r.rows, func(p row) bool { return p.Scenario == x.Scenario && p.Subject == "postfix" })
		if x.Subject != "tlsrelay" || i < 0 {
			continue
		}
		p := r.rows[i]
		fmt.Fprintf(w, "%s against Postfix: %.1f times the messages per second, %.1f times per connection, %.2f of the CPU, p99 %.2f of its\n",
			x.Scenario, x.PerSecond/p.PerSecond, x.PerConnection/p.PerConnection, x.CPU/p.CPU, x.P99/p.P99)
	}
}
