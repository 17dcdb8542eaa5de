package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// goPackage is what these tests read of `go list -json`.
type goPackage struct {
	ImportPath string
	Doc        string
	Name       string
	Imports    []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Name,Imports", "tlsrelay/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// floors are the rooms in the order in which arrows may run: a package
// imports from its own floor or from a later one.
var floors = []string{"cmd", "configs", "relay", "policy", "events"}

func floor(importPath string) int {
	rest, ok := strings.CutPrefix(importPath, "tlsrelay/")
	if !ok {
		return -1
	}
	name, _, _ := strings.Cut(rest, "/")
	return slices.Index(floors, name)
}

func TestArrowsRunOneWay(t *testing.T) {
	for _, p := range listPackages(t) {
		from := floor(p.ImportPath)
		if from < 0 {
			t.Errorf("%s lives outside the five folders", p.ImportPath)
		}
		for _, imp := range p.Imports {
			if to := floor(imp); to >= 0 && to < from {
				t.Errorf("%s imports %s: arrows run %s", p.ImportPath, imp, strings.Join(floors, " → "))
			}
		}
	}
}

// The three roots hold nouns and decisions: they touch neither network nor
// disk, and know none of the rooms that do.
func TestRootsArePure(t *testing.T) {
	worldly := []string{"net", "net/http", "os", "os/exec", "database/sql", "io/ioutil", "crypto/tls"}
	// Sub-packages that are pure themselves.
	pure := []string{"tlsrelay/policy/domain", "tlsrelay/policy/account", "tlsrelay/events/jsonobject"}
	roots := []string{"tlsrelay/relay", "tlsrelay/policy", "tlsrelay/events"}
	for _, p := range listPackages(t) {
		if !slices.Contains(roots, p.ImportPath) && !slices.Contains(pure, p.ImportPath) {
			continue
		}
		for _, imp := range p.Imports {
			ours := strings.HasPrefix(imp, "tlsrelay/") && !slices.Contains(roots, imp) && !slices.Contains(pure, imp)
			if slices.Contains(worldly, imp) || ours {
				t.Errorf("%s imports %s", p.ImportPath, imp)
			}
		}
	}
}

func TestEveryPackageTellsItsPart(t *testing.T) {
	for _, p := range listPackages(t) {
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		if p.Name != "main" && path.Base(p.ImportPath) != p.Name {
			t.Errorf("%s is called %s", p.ImportPath, p.Name)
		}
	}
}

var (
	// newLine is the end of a line, with the marks that begin the next one of a comment.
	newLine = regexp.MustCompile(`\n[ \t]*(//|#|\*)?[ \t]*`)
	// cited is what may come before a section sign: an RFC, and other
	// sections of it.
	cited = regexp.MustCompile(`RFC \d+ (\([^()]{1,40}\) )?(\x{a7}[0-9A-Z.]+(,? ?(and |to |or )?))*$`)
	// elsewhere are documents that are not in this repository.
	elsewhere = regexp.MustCompile(`tls-` + `policy\b|sendgrid-` + `contract|peer-` + `features|(interface|architecture|dependencies)\.` + `md`)
)

// A reader can look up whatever a comment or a page cites: an RFC, or a file of
// this repository.
func TestCitationsCanBeLookedUp(t *testing.T) {
	for file, text := range texts(t) {
		text = newLine.ReplaceAllString(text, " ")
		var bad []string
		for _, at := range elsewhere.FindAllStringIndex(text, -1) {
			bad = append(bad, around(text, at[0]))
		}
		for at := range text {
			if strings.HasPrefix(text[at:], "\u00a7") && !cited.MatchString(text[max(0, at-200):at]) {
				bad = append(bad, around(text, at))
			}
		}
		if len(bad) > 0 {
			t.Errorf("%s cites what is not here: %q", file, bad)
		}
	}
}

// around gives a piece of text about a place in it.
func around(text string, at int) string {
	return strings.ToValidUTF8(text[max(0, at-40):min(len(text), at+20)], "")
}

// texts reads every file of the repository that people write, by its path.
func texts(t *testing.T) map[string]string {
	const root = "../.."
	all := map[string]string{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch name := d.Name(); {
		case err != nil:
			return err
		case d.IsDir() && (name == ".git" || name == "node_modules" || name == "bin" || name == "data"):
			return filepath.SkipDir
		case d.IsDir() || !slices.Contains([]string{".go", ".md", ".tmpl", ".yml", ".yaml", ".service"}, path.Ext(name)) && name != "Makefile":
			return nil
		}
		text, err := os.ReadFile(file)
		name, _ := filepath.Rel(root, file)
		all[filepath.ToSlash(name)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The walk in the README is one that can be walked: each place says in its first lines
// which it is, and names the next.
func TestWalkCanBeWalked(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, walk, _ := strings.Cut(string(readme), "### From a 250 to the block event\n")
	walk, _, _ = strings.Cut(walk, "\n## ")
	places := regexp.MustCompile("(?m)^\\d+\\. \\[`([^`]+)`\\]").FindAllStringSubmatch(walk, -1)
	if len(places) != 10 {
		t.Errorf("the walk has %d places", len(places))
	}
	for i, p := range places {
		text, err := os.ReadFile("../../" + p[1])
		if err != nil {
			t.Error(err)
			continue
		}
		head, _, _ := strings.Cut(string(text), "\npackage ")
		head = strings.ReplaceAll(head, "\n// ", " ")
		want := []string{fmt.Sprintf("From a 250 to the block event, %d of %d: ", i+1, len(places))}
		if i+1 < len(places) {
			want = append(want, "Next: "+places[i+1][1]+".")
		}
		for _, w := range want {
			if !strings.Contains(head, w) {
				t.Errorf("%s does not say %q", p[1], w)
			}
		}
	}
}
