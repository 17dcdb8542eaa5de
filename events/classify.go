package events

import "strings"

// The values of bounce_classification (contract §4.3).
const (
	ClassContent    = "Content"
	ClassVolume     = "Frequency or Volume Too High"
	ClassAddress    = "Invalid Address"
	ClassMailbox    = "Mailbox Unavailable"
	ClassReputation = "Reputation"
	ClassTechnical  = "Technical"
	ClassUnknown    = "Unclassified"
)

// Classify sorts a bounce into SendGrid's classes. Our own reasons are
// certain, so they come first; then the words of the reply, because hosts
// choose words with more care than codes (5.7.1 means anything); then the
// enhanced status code.
func Classify(reply, status string, reason Reason) string {
	if c := classOfReason(reason); c != "" {
		return c
	}
	if c := classOfWords(strings.ToLower(reply)); c != "" {
		return c
	}
	return classOfStatus(status)
}

// classOfReason gives the class of what this relay found out itself, "" where
// the reply knows better.
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

// classWords is read from the top: the first row with a word that occurs in
// the reply is its class.
var classWords = [...]struct {
	class string
	words []string
}{
	// Ours: the reason of a TLS block that lost its token.
	{ClassTechnical, []string{"tls required but not supported"}},
	{ClassVolume, []string{
		"rate limit", "rate-limit", "too many messages", "too many connections", "too much mail", "throttl",
		"unusual rate", "limit exceeded", "exceeded the limit", "receiving mail at a rate",
	}},
	{ClassReputation, []string{
		"reputation", "blacklist", "black list", "blocklist", "block list", "denylist", "dnsbl", "rbl",
		"spamhaus", "barracuda", "spamcop", "sorbs", "senderscore", "listed by", "is listed", "on our block",
	}},
	{ClassMailbox, []string{
		"mailbox full", "mailbox is full", "over quota", "overquota", "quota exceeded", "exceeded storage",
		"out of storage", "insufficient storage", "mailbox disabled", "account disabled", "account is disabled",
		"inactive", "suspended", "deactivated",
	}},
	{ClassAddress, []string{
		"user unknown", "unknown user", "no such user", "no such recipient", "no such address", "no such mailbox",
		"does not exist", "doesn't exist", "unknown recipient", "invalid recipient", "recipient unknown",
		"recipient not found", "user not found", "address not found", "no mailbox", "unknown address",
		"invalid mailbox", "mailbox not found",
	}},
	{ClassTechnical, []string{
		"relay", "starttls", "encryption", "dmarc", "dkim", "spf", "authentication", "unauthenticated",
		"too large", "too big", "size limit", "protocol", "syntax", "dns",
	}},
	{ClassContent, []string{
		"spam", "content", "virus", "malware", "phish", "attachment", "unsolicited", "bulk",
	}},
	{ClassMailbox, []string{"mailbox unavailable", "temporarily unavailable"}},
}

func classOfWords(reply string) string {
	for _, row := range classWords {
		for _, w := range row.words {
			if containsWord(reply, w) {
				return row.class
			}
		}
	}
	return ""
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

// classOfStatus reads subject and detail of an enhanced status code
// (RFC 3463 §3; RFC 7372 and RFC 7505 for the later details).
func classOfStatus(status string) string {
	_, rest, _ := strings.Cut(status, ".")
	switch rest {
	case "2.3", "1.7", "1.8": // too long for the mailbox; the sender's address is bad
		return ClassTechnical
	case "7.1", "7.0": // refused, and the words said nothing
		return ClassReputation
	case "7.25", "7.26", "7.27": // reverse DNS, authentication
		return ClassTechnical
	case "7.28": // mail flood
		return ClassVolume
	}
	switch subject, _, _ := strings.Cut(rest, "."); subject {
	case "1":
		return ClassAddress
	case "2":
		return ClassMailbox
	case "3", "4", "5", "6", "7":
		return ClassTechnical
	}
	return ClassUnknown
}
