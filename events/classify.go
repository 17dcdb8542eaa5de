package events

import "strings"

// The values of bounce_classification. They are those of SendGrid's webhook, because
// clients fail on others.
const (
	ClassContent    = "Content"
	ClassVolume     = "Frequency or Volume Too High"
	ClassAddress    = "Invalid Address"
	ClassMailbox    = "Mailbox Unavailable"
	ClassReputation = "Reputation"
	ClassTechnical  = "Technical"
	ClassUnknown    = "Unclassified"
)

// Refusal is why a recipient is given up, as far as type and class depend on it.
type Refusal struct {
	Reply  string // the reply of the host, or our own text
	Status string // enhanced status code; "" or "5.0.0": none
	Reason Reason
	// AtRecipient: the host answered RCPT so, and means this recipient alone.
	AtRecipient bool
	// Shared: one answer was for several recipients at once.
	Shared bool
}

// Class sorts a refusal into SendGrid's classes.
func (r Refusal) Class() string { return Classify(r.Reply, r.Status, r.Reason) }

// Type says whether a permanent failure is a bounce or a block. A bounce is about the
// address, and consumers stop sending there. A block is about this message, its sender
// or the moment.
//
//	class                 type
//	Invalid Address       bounce
//	Mailbox Unavailable   bounce; blocked if the mailbox is full, because it may be emptied
//	Unclassified          bounce for 5.1.x, 5.2.x, and without a code in answer to RCPT
//	all others            blocked
//
// A shared answer is a block, because nobody knows which address it means.
func (r Refusal) Type() BounceType {
	if r.Reason == AccountGone {
		return TypeBounce // a deleted account has no webhooks and no block list
	}
	if r.Shared {
		return TypeBlocked
	}
	switch r.Class() {
	case ClassAddress:
		return TypeBounce
	case ClassMailbox:
		if !r.full() {
			return TypeBounce
		}
	case ClassUnknown:
		subject := subjectOf(r.Status)
		if subject == "1" || subject == "2" || r.AtRecipient && (r.Status == "" || r.Status == "5.0.0") {
			return TypeBounce
		}
	}
	return TypeBlocked
}

// full reports whether the mailbox has no room (RFC 3463 §3.3).
func (r Refusal) full() bool {
	return strings.HasSuffix(r.Status, ".2.2") || contains(withoutAddresses(strings.ToLower(r.Reply)), fullWords[:])
}

// Classify sorts a bounce into SendGrid's classes. Our own reasons come first, because
// they are certain. Then comes the text of the reply, because hosts choose it with more
// care than the code (5.7.1 means anything). The enhanced status code comes last.
func Classify(reply, status string, reason Reason) string {
	if c := classOfReason(reason); c != "" {
		return c
	}
	if c := classOfWords(withoutAddresses(strings.ToLower(reply))); c != "" {
		return c
	}
	return classOfStatus(status)
}

// classOfReason returns the class of a reason that this relay found itself, "" if the
// reply says more.
func classOfReason(r Reason) string {
	switch r {
	case NoReason, ReplyTemp, ReplyPerm, ReplyMixed, Expired, GreetingFail, EHLOFail:
		return ""
	case NoDomain, NullMX:
		return ClassAddress
	case Dropped:
		return ClassUnknown
	}
	return ClassTechnical // the TLS reasons, DNS, connections, ourselves
}

// fullWords say that a mailbox is full.
var fullWords = [...]string{
	"quota", "overquota", "mailbox full", "full mailbox", "is full", "exceeded storage", "exceeded its storage",
	"exceeded its disk", "out of storage", "insufficient storage", "mailbox size limit", "mailbox has exceeded",
	"mailbox exceeded", "no space left", "not enough space", "not enough storage", "not enough disk",
	"exceed maximum allowed storage", "mailbox would exceed", "space has been used up",
}

// classWords is read from the top: the first row with a word that is in the reply gives
// the class. Words that name a cause come before words that only say "refused". Words
// about the sender come before words that may be about the recipient. Words that many
// replies have come last.
var classWords = [...]struct {
	class string
	words []string
}{
	// Our own text of a TLS block, where the reason is not known any more.
	{ClassTechnical, []string{"tls required but not supported"}},
	// Exchange Online and Domino: the address is not in their directory.
	{ClassAddress, []string{"5.4.1 recipient address rejected", "recipientnotfound", "not listed in domino", "not listed in public name"}},
	{ClassTechnical, []string{
		"dmarc", "dkim", "spf", "unauthenticated", "sender verify failed", "sender address rejected: domain not found",
		"domain does not exist", "not local host",
		"sender domain", "sender's domain", "domain of sender address", "domain of the sender", "unroutable sender",
		"unrouteable sender", "invalid sender", "unknown sender", "callback setup failed", "could not complete sender verify",
		"helo command rejected", "bad helo", "reverse dns", "reverse hostname", "rdns", "ptr record", "ptr resource record", "no ptr",
		"cannot find your hostname", "unresolvable relay host", "dns ptr",
	}},
	{ClassContent, []string{
		"likely unsolicited", "looks like spam", "message content", "content of this message", "content presents",
		"illegal attachment", "spam content", "bulk e-mail", "spam score", "spamassassin", "classified as spam",
		"detected as spam", "spam message", "mail content denied",
	}},
	{ClassVolume, []string{
		"rate limit", "rate-limit", "ratelimit", "too many messages", "too many connections", "too many concurrent",
		"too many sessions", "too much mail", "throttl", "unusual rate", "limit exceeded", "exceeded the limit",
		"exceeded permitted limits", "exceeded threshold", "receiving mail at a rate", "receiving mail too quickly",
		"sending limit", "daily limit", "per hour", "frequency limited", "sending quota", "submission quota",
		"message quota", "receiving limits", "unexpected volume", "recipient limit", "too many emails",
	}},
	{ClassReputation, []string{
		"reputation", "blacklist", "black list", "blocklist", "block list", "denylist", "deny list", "dnsbl", "rbl",
		"spamhaus", "barracuda", "spamcop", "sorbs", "senderscore", "senderbase", "uceprotect", "abuseat",
		"ipcheck.proofpoint", "csi.cloudmark", "listed by", "is listed", "listed at", "listed in", "on our block",
		"blocked using", "blocked by", "blocked - see", "blocked for", "blocked from", "banned sending", "banned sender",
		"client host rejected", "client blocked", "your ip", "sending ip", "ip address", "dynamic ip",
		"sender blocked", "blocked sender", "block policy", "envelope blocked", "envelope rejected", "sender address blocked",
		"sender denied", "sender rejected", "sender address rejected", "sender is spammer", "badmailfrom", "refused - see",
		"not authorized to send email directly", "user complaints", "spams from", "spam abuse", "open proxy",
		"service refused, please try later", "veuillez essayer plus tard", "bad outbound sender",
		"manual block", "not currently accepting mail from",
	}},
	{ClassMailbox, fullWords[:]},
	{ClassAddress, []string{
		"user unknown", "unknown user", "no such user", "no such recipient", "no such address", "no such mailbox",
		"no such person", "no such domain", "does not exist", "doesn't exist", "not exist", "unknown recipient",
		"invalid recipient", "recipient unknown", "recipient not found", "user not found", "address not found",
		"mailbox not found", "no mailbox", "unknown address", "address unknown", "address invalid", "unknown mailbox",
		"invalid mailbox", "mailbox invalid", "invalid user", "user invalid", "not a valid mailbox", "not a valid user",
		"not a valid recipient", "not a known user", "not a local user", "user not known", "user not local", "not local",
		"unknown local", "unknown or illegal alias", "unrouteable address", "unroutable address",
		"undeliverable address", "recipient invalid", "host unknown", "unknown host", "domain not found", "unknown domain",
		"not our customer", "this user doesn't have a", "no account by that name", "no one at this address",
		"could not be found", "no longer valid", "no longer accepts mail",
		"badrcptto", "validrcptto", "utilisateur inconnu", "destinatario desconocido", "empfänger unbekannt",
		"unknown virtual", "userunknown", "invalid-recipient", "not a local address", "not an active address", "mailbox not present",
		"no mail box", "badrecipientto", "no existe", "nessun utente", "address is wrong", "name is not found", "not present in directory",
	}},
	{ClassMailbox, []string{
		"mailbox disabled", "mailbox is disabled", "account disabled", "account is disabled", "user disabled",
		"you tried to reach is disabled", "disabled or discontinued", "user or domain is disabled", "inactiv", "suspend", "deactivated",
		"not active", "archived recipient", "terminated", "expired mailbox",
		"mailbox is frozen", "mailbox is locked", "account is locked", "mailbox blocked", "account blocked", "user is blocked",
		"mailbox is unavailable", "mailbox cannot be accessed", "account unavailable", "account closed", "account is closed",
	}},
	{ClassTechnical, []string{
		"relay", "allowed rcpthosts", "starttls", "encryption", "authentication", "authenticated", "credentials", "spoof",
		"too large", "too big", "size limit", "message size", "size exceeds", "email size", "protocol", "syntax", "dns",
		"too many hops", "hop count", "loop", "rfc 5321", "rfc 5322", "rfc 2822", "malformed", "smtputf8", "certificate",
		"members-only", "not allowed to post", "not authorized",
	}},
	{ClassContent, []string{
		"spam", "content", "virus", "malware", "phish", "attachment", "unsolicited", "bulk", "junk", "policy", "policies",
		"suspicious", "security issue", "header",
	}},
	{ClassMailbox, []string{"mailbox unavailable", "temporarily unavailable"}},
	{ClassReputation, []string{"blocked", "banned", "access denied", "administrative prohibition", "go away"}},
}

func classOfWords(reply string) string {
	for _, row := range classWords {
		if contains(reply, row.words) {
			return row.class
		}
	}
	return ""
}

func contains(reply string, words []string) bool {
	for _, w := range words {
		if containsWord(reply, w) {
			return true
		}
	}
	return false
}

// containsWord reports whether w begins a word of s: "rbl" is not in "terrible".
func containsWord(s, w string) bool {
	for {
		before, after, found := strings.Cut(s, w)
		if !found {
			return false
		}
		if n := len(before); n == 0 || before[n-1] < 'a' || before[n-1] > 'z' {
			return true
		}
		s = after
	}
}

// withoutAddresses removes the mail addresses from a reply. The sender wrote these, and
// mail to spam@ is not refused as spam because of that name.
func withoutAddresses(reply string) string {
	if !strings.Contains(reply, "@") {
		return reply
	}
	var b strings.Builder
	for len(reply) > 0 {
		at := strings.IndexByte(reply, '@')
		if at < 0 {
			break
		}
		from := strings.LastIndexAny(reply[:at], delimiters) + 1
		b.WriteString(reply[:from])
		rest := reply[at:]
		to := strings.IndexAny(rest, delimiters)
		if to < 0 {
			to = len(rest)
		}
		reply = rest[to:]
	}
	b.WriteString(reply)
	return b.String()
}

// delimiters stand around an address in a text.
const delimiters = " \t\r\n<>()[]{},;:\"'`|"

// subjectOf gives the middle part of an enhanced status code.
func subjectOf(status string) string {
	_, rest, _ := strings.Cut(status, ".")
	subject, _, _ := strings.Cut(rest, ".")
	return subject
}

// classOfStatus reads subject and detail of an enhanced status code
// (RFC 3463 §3; RFC 7372 and RFC 7505 for the later details).
func classOfStatus(status string) string {
	_, rest, _ := strings.Cut(status, ".")
	switch rest {
	case "2.3", "1.7", "1.8": // too long for the mailbox; the sender's address is bad
		return ClassTechnical
	case "7.1", "7.0": // refused, and the text does not say why
		return ClassReputation
	case "7.25", "7.26", "7.27": // reverse DNS, authentication
		return ClassTechnical
	case "7.28", "2.121", "2.122": // mail flood; Exchange Online's limits by the hour
		return ClassVolume
	}
	switch subjectOf(status) {
	case "1":
		return ClassAddress
	case "2":
		return ClassMailbox
	case "3", "4", "5", "6", "7":
		return ClassTechnical
	}
	return ClassUnknown
}
