package policy

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"text/template"

	"tlsrelay/events"
)

var update = flag.Bool("update", false, "write the pages that are made from the table of rows")

// The README's table and DECISIONS.md say what the table of rows says.
func TestPages(t *testing.T) {
	const begin, end = "<!-- from policy/rows.go -->\n", "<!-- end -->"
	keep(t, "../README.md", func(old string) string {
		head, rest, found := strings.Cut(old, begin)
		_, tail, ended := strings.Cut(rest, end)
		if !found || !ended {
			t.Fatalf("the README has no place for the table, between %q and %q", begin, end)
		}
		return head + begin + summary() + end + tail
	})
	keep(t, "DECISIONS.md", func(string) string {
		var b bytes.Buffer
		page := template.Must(template.ParseFiles("testdata/DECISIONS.md.tmpl"))
		if err := page.Execute(&b, map[string]string{
			"Rows": everyRow(), "Evidence": everyEvidence(), "Why": everyWhy(), "Codes": everyCode(),
		}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	})
}

// keep checks that a file is as want makes it of what it is, or makes it so.
func keep(t *testing.T, file string, want func(old string) string) {
	t.Helper()
	old, err := os.ReadFile(file)
	if err != nil && !*update {
		t.Fatal(err)
	}
	page := want(string(old))
	switch {
	case page == string(old):
	case !*update:
		t.Errorf("%s is stale: go generate ./policy", file)
	default:
		if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// answerWords puts an answer into the words of the pages.
func answerWords(c Cell, under Class) string {
	words := map[Evidence]string{
		Conclusive: "violates", Inconclusive: "unclear", Suspicious: "suspicious", Unreachable: "next host",
	}[c.Class]
	switch {
	case c == never:
		return "–"
	case c.Mail == Encrypted:
		words = "deliver, encrypted"
	case c.Mail == InClear:
		words = "deliver in clear"
	case c.Mail == ClearLater:
		words = "other hosts, then clear"
	case under == ClassOpportunistic && c.Class == Suspicious:
		words = "next host, never in clear"
	case under == ClassOpportunistic:
		words = "next host"
	}
	switch c.Again {
	case SayHELO:
		return "HELO, then " + words
	case RetryCompat:
		return strings.Replace("smaller hello, then "+words, "then other", "other", 1)
	case RetryNoSNI:
		return strings.Replace("without a server name, then "+words, "then other", "other", 1)
	case RetryNoTicket:
		return "once more without the ticket"
	}
	return words
}

// columnsOf gives the answers of a row as cells of a table.
func columnsOf(r Row) string {
	var words []string
	for _, c := range everyClass {
		words = append(words, answerWords(r.Cell(c), c))
	}
	return strings.Join(words, " | ")
}

// summary is the README's table: rows that are answered alike share a line.
func summary() string {
	var order []string
	hosts := make(map[string][]string)
	for _, r := range Rows() {
		answers := columnsOf(r)
		if hosts[answers] == nil {
			order = append(order, answers)
		}
		short, _, _ := strings.Cut(r.When, ":")
		hosts[answers] = append(hosts[answers], fmt.Sprintf("%s (%s)", short, r.ID))
	}
	b := "| the host | O | T | V |\n|---|---|---|---|\n"
	for _, answers := range order {
		b += "| " + strings.Join(hosts[answers], "; ") + " | " + answers + " |\n"
	}
	return b
}

func everyRow() string {
	b := "| row | the host | O | T | V | source |\n|---|---|---|---|---|---|\n"
	for _, r := range Rows() {
		b += fmt.Sprintf("| %s | %s | %s | %s |\n", r.ID, r.When, columnsOf(r), r.Source)
	}
	return strings.TrimSuffix(b, "\n")
}

func everyEvidence() string {
	var lines []string
	for _, c := range []Cell{encrypted, violates, unclear, suspicious, nextHost} {
		lines = append(lines, fmt.Sprintf("| `%s` | %s | %s |", c.Class, answerWords(c, ClassEncrypt), c.Class.Words()))
	}
	return strings.Join(lines, "\n")
}

func everyWhy() string {
	var lines []string
	for _, r := range Rows() {
		if r.Why != "" {
			lines = append(lines, fmt.Sprintf("**%s**, the host %s (%s). %s", r.ID, r.When, r.Source, r.Why))
		}
	}
	return strings.Join(lines, "\n\n")
}

func everyCode() string {
	rows := make(map[events.Reason][]string)
	for _, r := range Rows() {
		for _, f := range r.Findings() {
			if f.Class != OK && f.Class != Unreachable && !slices.Contains(rows[f.Reason], r.ID) {
				rows[f.Reason] = append(rows[f.Reason], r.ID)
			}
		}
	}
	var lines []string
	for _, reason := range events.Reasons() {
		if rows[reason] != nil {
			lines = append(lines, fmt.Sprintf("| `%s` | %s | %s | %s |", reason,
				Status(reason, FromAccount, false), Status(reason, FromAccount, true), strings.Join(rows[reason], ", ")))
		}
	}
	return strings.Join(lines, "\n")
}
