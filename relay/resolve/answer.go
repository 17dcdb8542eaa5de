package resolve

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// question is one record set that can be asked for. name is lower case with
// the trailing dot.
type question struct {
	name  string
	qtype uint16
}

// outcome is what a question came to.
type outcome string

// The outcomes. Failed and unanswered are trouble: whatever depends on the
// answer is temporary.
const (
	found      outcome = "found"
	noData     outcome = "no_data"     // the name exists, the type does not
	noName     outcome = "no_name"     // NXDOMAIN
	aliasOnly  outcome = "alias"       // a CNAME, without what it leads to
	failed     outcome = "failed"      // the resolver says it could not
	unanswered outcome = "no_answer"   // silence, or nothing that can be read
	refused    outcome = "not_capable" // the resolver did not understand EDNS0
)

// answer is what was learned from one question.
type answer struct {
	outcome   outcome
	mx        []mx
	addrs     []netip.Addr
	name      string // the last name of the alias chain
	authentic bool   // the resolver set AD
	detail    string // of trouble, for people
	ttl       time.Duration
	expires   time.Time
}

type mx struct {
	preference uint16
	host       string // as in the record, without the trailing dot; "" for "."
}

func (a answer) trouble() bool {
	return a.outcome != found && a.outcome != noData && a.outcome != noName
}

// Bounds on what one answer may fill us with.
const (
	maxChain   = 8
	maxRecords = 200
	maxHost    = 253
)

// TTLs: a zero TTL still serves the burst it was asked for; nothing is
// believed for more than a day; RFC 9520 §3.2 wants failures remembered for
// at least a second.
const (
	minTTL      = time.Second
	maxTTL      = 24 * time.Hour
	maxNegative = time.Hour
	noSOATTL    = 30 * time.Second
	troubleTTL  = time.Second
)

func troubled(o outcome, detail string) answer {
	return answer{outcome: o, detail: detail, ttl: troubleTTL}
}

// interpret reads the resolver's answer to q. Whatever cannot be understood
// is trouble, never "no such thing": that would bounce mail.
func interpret(m *dns.Msg, q question) answer {
	if !m.Response || m.Opcode != dns.OpcodeQuery || len(m.Question) != 1 ||
		m.Question[0].Qtype != q.qtype || dns.CanonicalName(m.Question[0].Name) != q.name {
		return troubled(unanswered, "answer to another question")
	}
	switch m.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
	case dns.RcodeFormatError, dns.RcodeNotImplemented, dns.RcodeBadVers:
		return troubled(refused, dns.RcodeToString[m.Rcode])
	default:
		detail := dns.RcodeToString[m.Rcode]
		if detail == "" {
			detail = "unknown response code"
		}
		return troubled(failed, detail)
	}
	name, ttl, ok := followAliases(m.Answer, q)
	if !ok {
		return troubled(failed, "loop of aliases")
	}
	a := answer{name: name, authentic: m.AuthenticatedData, ttl: ttl}
	a.collect(m.Answer, question{name, q.qtype})
	return a.conclude(m, q)
}

// conclude finds the outcome once the records are collected.
func (a answer) conclude(m *dns.Msg, q question) answer {
	some := len(a.mx)+len(a.addrs) > 0
	soa, referral := authority(m.Ns)
	switch {
	case some && m.Rcode != dns.RcodeSuccess:
		return troubled(failed, "NXDOMAIN with records")
	case some:
		a.outcome = found
		a.ttl = min(max(a.ttl, minTTL), maxTTL)
		return a
	case m.Rcode == dns.RcodeNameError:
		a.outcome = noName
	case a.name != q.name && soa == nil:
		a.outcome = aliasOnly
		a.ttl = min(max(a.ttl, minTTL), maxTTL)
		return a
	case referral && soa == nil:
		// A server that does not recurse has not said "no MX".
		return troubled(failed, "referral")
	case q.qtype == dns.TypeSOA && soa == nil && len(m.Answer) > 0:
		a.outcome = found // the self-test asks for nothing but AD
	default:
		a.outcome = noData
	}
	negative := noSOATTL
	if soa != nil {
		negative = seconds(min(soa.Hdr.Ttl, soa.Minttl)) // RFC 2308 §5
	}
	a.ttl = min(max(min(negative, a.ttl), minTTL), maxNegative)
	return a
}

// followAliases walks the chain of CNAMEs in the answer, in whatever order
// they stand, and gives its last name and least TTL.
func followAliases(rrs []dns.RR, q question) (name string, ttl time.Duration, ok bool) {
	name, ttl = q.name, maxTTL
	if q.qtype == dns.TypeCNAME {
		return name, ttl, true
	}
	for range maxChain + 1 {
		next := ""
		for _, rr := range rrs {
			if c, is := rr.(*dns.CNAME); is && dns.CanonicalName(c.Hdr.Name) == name {
				next = dns.CanonicalName(c.Target)
				ttl = min(ttl, seconds(c.Hdr.Ttl))
				break
			}
		}
		if next == "" {
			return name, ttl, true
		}
		name = next
	}
	return "", 0, false
}

// collect takes the records of q. Of mail hosts it keeps the best, for it is kept
// as long as the records say.
func (a *answer) collect(rrs []dns.RR, q question) {
	defer func() {
		if len(a.mx) > maxNoted {
			slices.SortStableFunc(a.mx, func(x, y mx) int { return cmp.Compare(x.preference, y.preference) })
			a.mx = slices.Clone(a.mx[:maxNoted])
		}
	}()
	n := 0
	for _, rr := range rrs {
		h := rr.Header()
		if h.Rrtype != q.qtype || h.Class != dns.ClassINET || dns.CanonicalName(h.Name) != q.name {
			continue
		}
		if n++; n > maxRecords {
			return
		}
		switch r := rr.(type) {
		case *dns.MX:
			host := strings.TrimSuffix(dns.CanonicalName(r.Mx), ".")
			if len(host) > maxHost {
				host = "(no host name)" // four octets of text for each odd one in the record
			}
			a.mx = append(a.mx, mx{r.Preference, host})
		case *dns.A:
			a.addAddress(r.A)
		case *dns.AAAA:
			a.addAddress(r.AAAA)
		}
		a.ttl = min(a.ttl, seconds(h.Ttl))
	}
}

func (a *answer) addAddress(ip []byte) {
	// An AAAA record may hold an IPv4 address in disguise.
	if addr, ok := netip.AddrFromSlice(ip); ok {
		a.addrs = append(a.addrs, addr.Unmap())
	}
}

// authority finds the SOA of a negative answer (RFC 2308 §2), and whether
// there are name servers, as in a referral.
func authority(rrs []dns.RR) (soa *dns.SOA, referral bool) {
	for _, rr := range rrs {
		switch r := rr.(type) {
		case *dns.SOA:
			soa = r
		case *dns.NS:
			referral = true
		}
	}
	return soa, referral
}

// seconds reads a TTL; one with the top bit set counts as zero (RFC 2181 §8).
func seconds(ttl uint32) time.Duration {
	if ttl > 1<<31-1 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}
