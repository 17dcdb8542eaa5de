package configs

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Fault is one thing wrong with a configuration.
type Fault struct {
	File string `json:"file"` // "" for the environment
	Line int    `json:"line"` // 0 when the fault is not of one line
	Key  string `json:"key"`  // dotted path, or the variable's name
	Text string `json:"text"`
}

// Error gives "relay.yaml:12: delivery.port: must be 1 to 65535".
func (f Fault) Error() string {
	var b strings.Builder
	if f.File != "" {
		fmt.Fprintf(&b, "%s:", f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, "%d:", f.Line)
		}
		b.WriteByte(' ')
	}
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	return b.String() + f.Text
}

// Faults are all faults of a configuration, in the order of the file.
type Faults []Fault

// Error gives one fault a line.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Load reads the defaults, then the YAML file at path ("" for none), then the
// environment env ("NAME=value", as os.Environ gives it). The error of a
// configuration that cannot be used is [Faults].
func Load(path string, env []string) (Config, error) {
	c, _, err := Inspect(path, env)
	return c, err
}

// Inspect is Load that also returns warnings, of values that can be used and are likely
// wrong. It may return some together with an error.
func Inspect(path string, env []string) (c Config, warnings Faults, err error) {
	var l loader
	if l.parse(defaultsName, []byte(Defaults)); len(l.faults) > 0 {
		return c, nil, l.faults // the program itself is broken
	}
	if path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return c, nil, Faults{{File: path, Text: readFault(err)}}
		}
		l.parse(path, text)
	}
	l.environment(env)
	l.validate()
	l.name()
	l.warn(time.Now())
	l.faults.sort()
	l.warnings.sort()
	if len(l.faults) > 0 {
		return c, l.warnings, l.faults
	}
	return l.config, l.warnings, nil
}

func (fs Faults) sort() {
	slices.SortStableFunc(fs, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key))
	})
}

func readFault(err error) string {
	if errors.Is(err, os.ErrNotExist) {
		return "no such file"
	}
	return "cannot be read"
}

// defaultsName stands for the embedded file in messages nobody should see.
const defaultsName = "defaults"

// loader gathers a Config and what is wrong with it.
type loader struct {
	config Config
	faults Faults
	// warnings are faults that stop nobody.
	warnings Faults
	origin   map[string]Fault               // where each key was last set: File and Line, or the variable
	broken   map[string]bool                // keys whose value could not be read; they are not validated
	chains   map[string][]*x509.Certificate // the relay's own, leaf first, by section
}

// parse reads one YAML document over the config so far.
func (l *loader) parse(file string, text []byte) {
	if l.origin == nil {
		l.origin, l.broken, l.chains = make(map[string]Fault), make(map[string]bool), make(map[string][]*x509.Certificate)
	}
	in := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	err := in.Decode(&doc)
	if err == io.EOF {
		return // an empty file sets nothing
	}
	for err == nil {
		var next yaml.Node
		if err = in.Decode(&next); err == nil && !isNull(next) {
			l.fault(Fault{File: file, Line: next.Line, Text: "another YAML document; one is read"})
		}
	}
	if err != io.EOF {
		l.fault(syntaxFault(file, err))
		return
	}
	l.mapping(file, "", doc.Content[0], reflect.ValueOf(&l.config).Elem())
}

// isNull reports whether a document is empty, such as one that is only "---".
func isNull(doc yaml.Node) bool {
	return len(doc.Content) == 0 || doc.Content[0].Tag == "!!null"
}

func syntaxFault(file string, err error) Fault {
	f := Fault{File: file, Text: strings.TrimPrefix(err.Error(), "yaml: ")}
	var load *yaml.LoadError
	if errors.As(err, &load) {
		f.Line, f.Text = load.Mark.Line, load.Message
	}
	return f
}

// mapping sets the fields of one struct from one YAML mapping.
func (l *loader) mapping(file, prefix string, n *yaml.Node, into reflect.Value) {
	if n.Kind != yaml.MappingNode {
		if n.Tag == "!!null" {
			return // "delivery:" with nothing below sets nothing
		}
		l.fault(Fault{file, n.Line, strings.TrimSuffix(prefix, "."), "must hold keys and values"})
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		key := prefix + name.Value
		if first, twice := seen[key]; twice {
			l.fault(Fault{file, name.Line, key, fmt.Sprintf("is set already in line %d", first)})
			continue
		}
		seen[key] = name.Line
		field, ok := fieldOf(into, name.Value)
		if !ok {
			l.fault(Fault{file, name.Line, key, "unknown key"})
			continue
		}
		at := Fault{File: file, Line: name.Line, Key: key}
		if isSection(field) {
			l.mapping(file, key+".", value, field)
		} else {
			l.set(at, key, field, value)
		}
	}
}

func (l *loader) set(at Fault, key string, field reflect.Value, value *yaml.Node) {
	l.origin[key] = at
	fresh := reflect.New(field.Type())
	if err := value.Decode(fresh.Interface()); err != nil || value.Tag == "!!null" {
		at.Text = "must be " + kindOf(field)
		l.broken[key] = true
		l.fault(at)
		return
	}
	field.Set(fresh.Elem())
	delete(l.broken, key)
}

func (l *loader) fault(f Fault) { l.faults = append(l.faults, f) }

// fieldOf finds the field of a struct by its yaml name.
func fieldOf(s reflect.Value, name string) (reflect.Value, bool) {
	for i := range s.NumField() {
		if s.Type().Field(i).Tag.Get("yaml") == name {
			return s.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func isSection(v reflect.Value) bool { return v.Kind() == reflect.Struct }

// kindOf says in words what a key holds.
func kindOf(v reflect.Value) string {
	switch v.Interface().(type) {
	case time.Duration:
		return `a duration such as "90s", "5m" or "72h"`
	}
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "a whole number"
	case reflect.Uint16:
		return "a TLS version: 1.0, 1.1, 1.2 or 1.3"
	case reflect.Map:
		if v.Type().Elem().Kind() == reflect.Slice {
			return "a mapping of names to lists of keywords"
		}
		return "a mapping of names to host:port"
	case reflect.Slice:
		switch v.Type().Elem().Name() {
		case "Prefix":
			return "a list of networks such as 192.0.2.0/24"
		case "Addr":
			return "a list of IP addresses"
		}
		return "a list of strings"
	}
	return "a string"
}

// environment sets every scalar and list key that has a TLSRELAY_ variable,
// and the secrets that have a _FILE one.
func (l *loader) environment(env []string) {
	vars := make(map[string]string)
	for _, e := range env {
		if name, value, ok := strings.Cut(e, "="); ok && strings.HasPrefix(name, "TLSRELAY_") {
			vars[name] = value
		}
	}
	if file := vars["TLSRELAY_ADMIN_TOKEN_FILE"]; file != "" {
		if text, err := os.ReadFile(file); err != nil {
			l.fault(Fault{Key: "TLSRELAY_ADMIN_TOKEN_FILE", Text: readFault(err)})
		} else {
			vars["TLSRELAY_ADMIN_TOKEN"] = strings.TrimSpace(string(text))
		}
	}
	for _, name := range refusedVariables {
		if vars[name] != "" {
			l.fault(Fault{Key: name, Text: "there is no other store than the one in data_dir"})
		}
	}
	names := l.section("", reflect.ValueOf(&l.config).Elem(), vars)
	l.unknown(vars, names)
}

// section sets the fields of a section, and returns the names of their variables, with
// false for keys that cannot come from the environment.
func (l *loader) section(prefix string, s reflect.Value, vars map[string]string) map[string]bool {
	names := make(map[string]bool)
	for i := range s.NumField() {
		key, field := prefix+s.Type().Field(i).Tag.Get("yaml"), s.Field(i)
		if isSection(field) {
			maps.Copy(names, l.section(key+".", field, vars))
			continue
		}
		name := "TLSRELAY_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
		names[name] = field.Kind() != reflect.Map
		if value, ok := vars[name]; ok && names[name] {
			l.set(Fault{Key: name}, key, field, textNode(value, field.Kind()))
		}
	}
	return names
}

// textNode makes the YAML value that a variable's text stands for. Plain
// scalars keep YAML's own reading, so "true" is a boolean where one is wanted.
func textNode(s string, k reflect.Kind) *yaml.Node {
	if k == reflect.String {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	}
	if k != reflect.Slice {
		var doc yaml.Node
		if yaml.Unmarshal([]byte(s), &doc) == nil && len(doc.Content) == 1 {
			return doc.Content[0]
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list.Content = append(list.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: part})
		}
	}
	return list
}
