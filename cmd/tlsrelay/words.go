package main

import (
	"cmp"
	"fmt"
	"strings"

	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver"
)

// manner is how mail goes over a connection, from the best to the worst.
type manner int

const (
	encrypted manner = iota
	badCert          // encrypted, to a certificate that is not valid
	inClear
)

// mannerOf says how mail goes over a connection; false: no mail goes over it.
func mannerOf(c relay.HostEvidence) (m manner, ok bool) {
	switch {
	case c.Stage != policy.StageReady || c.Verdict.Action != policy.Proceed:
		return encrypted, false
	case c.TLS == nil:
		return inClear, true
	case !c.TLS.Cert.Valid():
		return badCert, true
	}
	return encrypted, true
}

// verdictWords says what becomes of mail to a destination, and how it goes there. Many read
// only this line, so it must not make a delivery in clear look like a good one.
func verdictWords(r deliver.Report) string {
	why := ""
	if r.Failure != nil {
		why = fmt.Sprintf(": %s (%s)", r.Failure.Reply, r.Failure.Status)
	}
	switch {
	case r.Deliverable():
		return "deliverable" + handover(r.Hosts)
	case r.Ruling == policy.Block:
		return "would be blocked" + why
	case r.Failure != nil && r.Failure.Class == relay.Permanent:
		return "would bounce" + why
	}
	return "could not find out; the mail would wait and be tried again" + why
}

// handover says how the first host that takes mail gets it, and which later hosts would
// get it in a worse way.
func handover(hosts []deliver.ProbedHost) string {
	words := ""
	first := encrypted
	for _, h := range hosts {
		for _, c := range h.Connections {
			m, ok := mannerOf(c)
			switch {
			case !ok:
				continue
			case words == "":
				first, words = m, mannerWords(m, c)
			case m > first:
				words += "; should it come to " + h.Host + ", " + mannerWords(m, c)[2:]
			}
			break // a delivery goes to one address of a host
		}
	}
	return words
}

func mannerWords(m manner, c relay.HostEvidence) string {
	switch m {
	case inClear:
		return ", in clear: " + c.Host + " " + rowWords(c.Verdict, c.Plain)
	case badCert:
		return fmt.Sprintf(", encrypted, and the certificate of %s is not valid (%s)", c.Host, faults(c.TLS.Cert))
	}
	return ", encrypted"
}

func faults(c policy.Certificate) string {
	words := make([]string, len(c.Faults))
	for i, f := range c.Faults {
		words[i] = string(f)
	}
	return strings.Join(words, ", ")
}

// rowWords says what a host did. plain: the relay did not ask it for TLS.
func rowWords(v policy.Verdict, plain bool) string {
	return cmp.Or(v.Words(plain), "did something unheard of")
}

// hostWords says what a host did, which row and class that is in the decision, and whose
// demand fails.
func hostWords(v policy.Verdict, plain bool) string {
	s := fmt.Sprintf("%s (row %s, %s: %s", rowWords(v, plain), v.Row, v.Class, v.Class.Words())
	if token := cmp.Or(v.Reason, v.Note); token != "" {
		s += "; " + string(token)
	}
	s += ")"
	if v.Failed.Requirement != "" {
		s += fmt.Sprintf("; fails %s demanded by %s", v.Failed.Requirement, v.Failed.Source)
	}
	return s
}

func connectionWords(c relay.HostEvidence) string {
	switch m, goes := mannerOf(c); {
	case goes && m == inClear:
		return "in clear"
	case c.TLS == nil:
		return fmt.Sprintf("no TLS, at %s", c.Stage)
	}
	cert := "certificate valid for " + c.TLS.Cert.Matched
	if !c.TLS.Cert.Valid() {
		cert = "certificate: " + faults(c.TLS.Cert)
	}
	return fmt.Sprintf("TLS %s %s, %s", c.TLS.Version, c.TLS.Cipher, cert)
}

// stateWords says what became of a message, or will become of it: each state, with how the
// mail went and how many recipients have that state if there are several.
func stateWords(ds []relay.Delivery) string {
	var order []string
	count := make(map[string]int)
	all := 0
	for _, d := range ds {
		for _, r := range d.Recipients {
			words := recipientWords(d, r)
			if count[words] == 0 {
				order = append(order, words)
			}
			count[words]++
			all++
		}
	}
	for i, words := range order {
		if all > 1 {
			order[i] = fmt.Sprintf("%d %s", count[words], words)
		}
	}
	return cmp.Or(strings.Join(order, "; "), "nothing is known of its recipients")
}

func recipientWords(d relay.Delivery, r relay.Recipient) string {
	m, seen := lastManner(d)
	switch {
	case r.State == relay.Waiting && d.Held:
		return "held"
	case r.State == relay.Waiting && seen && m != encrypted:
		return "waiting (would go " + [...]string{badCert: "to a certificate that is not valid", inClear: "in clear"}[m] + ")"
	case r.State == relay.Waiting:
		return "waiting"
	case r.State == relay.Delivered && seen:
		return [...]string{"delivered encrypted", "delivered encrypted, to a certificate that is not valid", "delivered in clear"}[m]
	}
	return string(r.State)
}

// lastManner is the worst way in which the last attempt could hand mail over. It is false
// if the attempt could not, or if earlier attempts have served other recipients of the
// delivery: how those were served is only in the log.
func lastManner(d relay.Delivery) (worst manner, seen bool) {
	if d.Last == nil || d.Attempts > 1 && len(d.Recipients) > 1 && len(d.Waiting()) == 0 {
		return encrypted, false
	}
	for _, c := range d.Last.Hosts {
		if m, ok := mannerOf(c); ok {
			worst, seen = max(worst, m), true
		}
	}
	return worst, seen
}
