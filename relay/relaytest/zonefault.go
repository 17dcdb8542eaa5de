package relaytest

import (
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Trouble is what goes wrong with the answers for a name.
type Trouble struct {
	Rcode    int           // an answer with this code and no records
	Silent   bool          // no answer at all
	SilentOn string        // "udp" or "tcp": no answer there
	Truncate bool          // TC over UDP, everything over TCP
	Raw      []byte        // these octets after the two of the query's id
	NoChase  bool          // a CNAME is given without what it leads to
	Delay    time.Duration // before the answer
	Times    int           // only for the first so many questions; 0: always
}

// Trouble makes trouble for questions about name; qtype 0 means any type.
// The zero Trouble ends it.
func (z *Zone) Trouble(name string, qtype uint16, t Trouble) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if t.Times == 0 {
		t.Times = -1
	}
	z.troubles[question{fqdn(name), qtype}] = &t
}

// troubleFor takes note of a question and gives the trouble it meets.
func (z *Zone) troubleFor(q question) Trouble {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked[q]++
	z.total++
	for _, key := range []question{q, {q.name, 0}} {
		if t := z.troubles[key]; t != nil && t.Times != 0 {
			if t.Times > 0 {
				t.Times--
			}
			return *t
		}
	}
	return Trouble{}
}

func (z *Zone) answer(w dns.ResponseWriter, req *dns.Msg) {
	if len(req.Question) != 1 {
		return
	}
	q := question{fqdn(req.Question[0].Name), req.Question[0].Qtype}
	t := z.troubleFor(q)
	network := w.LocalAddr().Network()
	if t.Silent || t.SilentOn == network || !z.pause(t.Delay) {
		return
	}
	if t.Raw != nil {
		w.Write(append([]byte{byte(req.Id >> 8), byte(req.Id)}, t.Raw...))
		return
	}
	m := new(dns.Msg).SetReply(req)
	m.RecursionAvailable = true
	if t.Rcode != 0 {
		m.Rcode = t.Rcode
	} else {
		z.fill(m, q, !t.NoChase)
	}
	size := dns.MinMsgSize
	if opt := req.IsEdns0(); opt != nil {
		size = max(size, int(opt.UDPSize()))
		m.SetEdns0(1232, opt.Do())
	}
	// RFC 6840 §5.7: AD goes to those who asked by DO or AD.
	if opt := req.IsEdns0(); !req.AuthenticatedData && (opt == nil || !opt.Do()) {
		m.AuthenticatedData = false
	}
	if _, udp := w.LocalAddr().(*net.UDPAddr); udp {
		if m.Truncate(size); t.Truncate {
			m.Answer, m.Truncated = nil, true
		}
	}
	w.WriteMsg(m)
}

// pause waits; false: the zone was closed.
func (z *Zone) pause(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-z.done:
		return false
	}
}

// fill answers from the records, following aliases.
func (z *Zone) fill(m *dns.Msg, q question, chase bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	m.AuthenticatedData = true
	for range 12 {
		m.AuthenticatedData = m.AuthenticatedData && z.isSigned(q.name)
		sets, ok := z.records[q.name]
		if found := sets[q.qtype]; len(found) > 0 {
			m.Answer = append(m.Answer, found...)
			return
		}
		alias := sets[dns.TypeCNAME]
		if len(alias) == 0 {
			if !ok && !z.hasBelow(q.name) {
				m.Rcode = dns.RcodeNameError
			}
			m.Ns = append(m.Ns, z.soaLocked())
			return
		}
		m.Answer = append(m.Answer, alias[0])
		if !chase {
			return
		}
		q.name = fqdn(alias[0].(*dns.CNAME).Target)
	}
	// A loop of aliases: resolvers give up with SERVFAIL.
	m.Answer, m.Rcode, m.AuthenticatedData = nil, dns.RcodeServerFailure, false
}

// isSigned looks for the closest name at or above that says so.
func (z *Zone) isSigned(name string) bool {
	for {
		if yes, ok := z.signed[name]; ok {
			return yes
		}
		if name == "." {
			return false
		}
		if _, parent, _ := strings.Cut(name, "."); parent != "" {
			name = parent
		} else {
			name = "."
		}
	}
}

// hasBelow reports whether name exists because something below it does
// (RFC 8020).
func (z *Zone) hasBelow(name string) bool {
	if name == "." {
		return true
	}
	for other := range z.records {
		if strings.HasSuffix(other, "."+name) {
			return true
		}
	}
	return false
}
