package wire

import "strings"

// normalize rewrites what clients write and go-smtp does not read. It removes
// white space at the end of the line (RFC 5321 §4.1.1) and before the colon of
// MAIL and RCPT. It gives <postmaster> our domain (RFC 5321 §4.1.1.3). It
// removes the AUTH parameter of MAIL, because go-smtp refuses what is no mailbox:
// a server that does not trust the client takes any value for <> (RFC 4954 §5).
func normalize(line, host string) string {
	line = strings.TrimRight(line, " \t")
	if len(line) < 5 || !strings.EqualFold(line[:5], "MAIL ") && !strings.EqualFold(line[:5], "RCPT ") {
		return line
	}
	p, ok := splitPath(line)
	if !ok {
		return line
	}
	changed := false
	if word := strings.TrimRight(p.word, " \t"); word != p.word {
		p.word, changed = word, true
	}
	if line[0]|0x20 == 'r' && strings.EqualFold(p.path, "postmaster") {
		p.path, changed = p.path+"@"+host, true
	}
	if line[0]|0x20 == 'm' && strings.Contains(strings.ToUpper(p.parameters), "AUTH=") {
		p.parameters, changed = withoutParameter(p.parameters, "AUTH"), true
	}
	if !changed {
		return line
	}
	if p.brackets {
		p.path = "<" + p.path + ">"
	}
	return p.word + ":" + p.path + p.parameters
}

func withoutParameter(parameters, name string) string {
	var b strings.Builder
	for word := range strings.FieldsSeq(parameters) {
		if key, _, _ := strings.Cut(word, "="); !strings.EqualFold(key, name) {
			b.WriteString(" " + word)
		}
	}
	return b.String()
}

// Path is the address in a MAIL or RCPT command, without < and >. ok is false if
// the command has none.
func Path(line string) (path string, ok bool) {
	p, ok := splitPath(line)
	return p.path, ok
}

// pathCommand is a MAIL or RCPT command in its parts.
type pathCommand struct {
	word       string // before the colon
	path       string // between < and >, or without them
	brackets   bool
	parameters string // what follows
}

// splitPath splits MAIL FROM:<...> or RCPT TO:<...>. It takes a > in a quoted
// string for a part of the address. Old clients write no < and >.
func splitPath(command string) (p pathCommand, ok bool) {
	word, rest, ok := strings.Cut(command, ":")
	if !ok {
		return pathCommand{}, false
	}
	p.word, rest = word, strings.TrimSpace(rest)
	end := " \t"
	if strings.HasPrefix(rest, "<") {
		rest, end, p.brackets = rest[1:], ">", true
	}
	quoted := false
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && strings.IndexByte(end, c) >= 0:
			p.path, p.parameters = rest[:i], rest[i:]
			if p.brackets {
				p.parameters = rest[i+1:]
			}
			return p, true
		}
	}
	p.path = rest
	return p, !p.brackets && !quoted
}
