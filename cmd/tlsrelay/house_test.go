package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
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
	pure := []string{"tlsrelay/policy/domain", "tlsrelay/policy/account"}
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
