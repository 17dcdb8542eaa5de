package events

import (
	"strings"
	"testing"
)

// What the large receivers, and the servers and filters that most others run,
// say when they refuse for good, and what is told of it: whether the address is
// to blame, so that consumers send nothing there any more.
func TestWhatHostsSay(t *testing.T) {
	const (
		bounce = TypeBounce
		block  = TypeBlocked
	)
	for _, c := range []struct {
		reply string
		class string
		typ   BounceType
	}{
		// Gmail
		{"550 5.1.1 The email account that you tried to reach does not exist. Please try double-checking the recipient's email address for typos or unnecessary spaces. For more information, go to https://support.google.com/mail/?p=NoSuchUser", ClassAddress, bounce},
		{"550 5.2.1 The email account that you tried to reach is disabled. For more information, go to https://support.google.com/mail/?p=DisabledUser", ClassMailbox, bounce},
		{"550 5.2.1 The email account that you tried to reach is inactive.", ClassMailbox, bounce},
		{"552 5.2.2 The email account that you tried to reach is over quota. Please direct the recipient to https://support.google.com/mail/?p=OverQuotaPerm", ClassMailbox, block},
		{"552 5.2.2 The recipient's inbox is out of storage space and inactive.", ClassMailbox, block},
		{"550 5.7.1 [192.0.2.1] Our system has detected that this message is likely unsolicited mail. To reduce the amount of spam sent to Gmail, this message has been blocked.", ClassContent, block},
		{"550 5.7.1 Our system has detected that this message is likely suspicious due to the very low reputation of the sending domain.", ClassReputation, block},
		{"550 5.7.1 [192.0.2.1 1] Our system has detected an unusual rate of unsolicited mail originating from your IP address. To protect our users from spam, mail sent from your IP address has been blocked.", ClassVolume, block},
		{"550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages from being delivered.", ClassVolume, block},
		{"550 5.4.5 Daily SMTP relay sending limit exceeded for this customer.", ClassVolume, block},
		{"550 5.7.26 This mail has been blocked because the sender is unauthenticated. Gmail requires all senders to authenticate with either SPF or DKIM.", ClassTechnical, block},
		{"550 5.7.26 Unauthenticated email from example.org is not accepted due to domain's DMARC policy.", ClassTechnical, block},
		{"550 5.7.25 The IP address sending this message does not have a PTR record setup, or the corresponding forward DNS entry does not match the sending IP.", ClassTechnical, block},
		{"550 5.7.1 The IP you're using to send mail is not authorized to send email directly to our servers. Please use the SMTP relay at your service provider instead.", ClassReputation, block},
		{"552 5.7.0 This message was blocked because its content presents a potential security issue.", ClassContent, block},
		{"550 5.7.1 The user or domain that you are sending to (or from) has a policy that prohibited the mail that you sent.", ClassContent, block},
		{"552 5.3.4 Your message exceeded Google's message size limits.", ClassTechnical, block},

		// Outlook, Exchange Online, Exchange
		{"550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302).", ClassMailbox, bounce},
		{"550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient bob@example.com not found by SMTP address lookup", ClassAddress, bounce},
		{"550 5.4.1 Recipient address rejected: Access denied. For more information see https://aka.ms/EXOSmtpErrors [XX0EUR01FT001.eop-EUR01.prod.protection.outlook.com]", ClassAddress, bounce},
		{"550 5.1.1 RESOLVER.ADR.ExRecipNotFound; not found", ClassAddress, bounce},
		{"550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3150).", ClassReputation, block},
		{"550 5.7.606 Access denied, banned sending IP [192.0.2.1]. To request removal from this list please visit https://sender.office.com/", ClassReputation, block},
		{"550 5.7.511 Access denied, banned sender[192.0.2.1].", ClassReputation, block},
		{"550 5.7.1 Service unavailable, Client host [192.0.2.1] blocked using Spamhaus. To request removal from this list see https://www.spamhaus.org/query/ip/192.0.2.1 (AS3130).", ClassReputation, block},
		{"550 5.7.509 Access denied, sending domain example.org does not pass DMARC verification and has a DMARC policy of reject.", ClassTechnical, block},
		{"550 5.7.1 TRANSPORT.RULES.RejectMessage; the message was rejected by organization policy", ClassContent, block},
		{"550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required; Delivery restriction check failed because the sender was not authenticated when sending to this group", ClassTechnical, block},
		{"550 5.7.64 TenantAttribution; Relay Access Denied", ClassTechnical, block},
		{"550 5.7.501 Access denied, spam abuse detected.", ClassReputation, block},
		{"550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP.", ClassReputation, block},
		{"550 5.2.122 The recipient has exceeded their limit for the number of messages they can receive per hour.", ClassVolume, block},
		{"554 5.2.2 mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded", ClassMailbox, block},
		{"554 5.2.1 mailbox cannot be accessed", ClassMailbox, bounce},
		{"550 5.2.3 RESOLVER.RST.RecipSizeLimit; message too large for this recipient", ClassTechnical, block},
		{"550 5.1.8 Access denied, bad outbound sender.", ClassReputation, block},

		// Yahoo and AOL
		{"554 delivery error: dd This user doesn't have a yahoo.com account (bob@yahoo.com) [0] - mta1.example.yahoo.com", ClassAddress, bounce},
		{"554 delivery error: dd Sorry, your message to bob@yahoo.com cannot be delivered. This mailbox is disabled (554.30). - mta1.example.yahoo.com", ClassMailbox, bounce},
		{"552 1 Requested mail action aborted, mailbox not found", ClassAddress, bounce},
		{"553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1, because the ip is in Spamhaus's list; see http://postmaster.yahoo.com/550-bl23.html", ClassReputation, block},
		{"554 5.7.9 Message not accepted for policy reasons. See https://postmaster.yahooinc.com/error-codes", ClassContent, block},
		{"554 Message not allowed - [PH01] Email not accepted for policy reasons. Please visit https://postmaster.yahooinc.com/error-codes", ClassContent, block},
		{"553 5.7.2 [TSS09] All messages from 192.0.2.1 will be permanently deferred; Retrying will NOT succeed. See https://postmaster.yahooinc.com/error-codes due to user complaints", ClassReputation, block},
		{"554 5.7.1 (CON:B1) The IP address has a poor reputation", ClassReputation, block},

		// Postfix
		{"550 5.1.1 <bob@example.com>: Recipient address rejected: User unknown in local recipient table", ClassAddress, bounce},
		{"550 5.1.1 <bob@example.com>: Recipient address rejected: User unknown in virtual mailbox table", ClassAddress, bounce},
		{"550 5.1.1 <bob@example.com>: Recipient address rejected: undeliverable address: host mx.example.com said: 550 no (in reply to RCPT TO command)", ClassAddress, bounce},
		{"554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org; https://www.spamhaus.org/query/ip/192.0.2.1", ClassReputation, block},
		{"554 5.7.1 <unknown[192.0.2.1]>: Client host rejected: Access denied", ClassReputation, block},
		{"550 5.7.25 Client host rejected: cannot find your reverse hostname, [192.0.2.1]", ClassTechnical, block},
		{"554 5.7.1 <bob@example.com>: Relay access denied", ClassTechnical, block},
		{"550 5.1.8 <ann@example.org>: Sender address rejected: Domain not found", ClassTechnical, block},
		{"554 5.7.1 <ann@example.org>: Sender address rejected: Access denied", ClassReputation, block},
		{"554 5.7.1 <bob@example.com>: Recipient address rejected: Access denied", ClassReputation, block},
		{"550 5.7.1 <mail.example.org>: Helo command rejected: Host not found", ClassTechnical, block},
		{"552 5.3.4 Message size exceeds fixed limit", ClassTechnical, block},
		{"552 5.2.2 <bob@example.com>: user is over quota", ClassMailbox, block},
		{"550 5.7.1 Message rejected as spam by Content Filtering.", ClassContent, block},
		{"554 5.7.1 <bob@example.com>: Recipient address rejected: blocked by policy", ClassReputation, block},
		{"554 5.4.6 Too many hops", ClassTechnical, block},

		// Exim, also as cPanel sets it up
		{"550 Unrouteable address", ClassAddress, bounce},
		{"550 unknown user", ClassAddress, bounce},
		{`550 No Such User Here"`, ClassAddress, bounce},
		{"550 Sender verify failed", ClassTechnical, block},
		{"550 relay not permitted", ClassTechnical, block},
		{"550 JunkMail rejected - mail.example.org [192.0.2.1] is in an RBL, see https://www.spamhaus.org/query/ip/192.0.2.1", ClassReputation, block},
		{"550 rejected because 192.0.2.1 is in a black list at zen.spamhaus.org", ClassReputation, block},
		{"550 This message was classified as SPAM and may not be delivered", ClassContent, block},
		{"550 Message headers fail syntax check", ClassTechnical, block},
		{"550 Mailbox quota exceeded", ClassMailbox, block},
		{"552 message too big", ClassTechnical, block},

		// Proofpoint, and those it filters for
		{"554 5.7.0 Blocked - see https://ipcheck.proofpoint.com/?ip=192.0.2.1", ClassReputation, block},
		{"521 5.7.1 Service unavailable; client [192.0.2.1] blocked using prs.proofpoint.com", ClassReputation, block},
		{"550 5.1.1 User Unknown", ClassAddress, bounce},
		{"550 5.7.0 Local Policy Violation", ClassContent, block},
		{"554 5.7.1 [CS01] Message rejected due to local policy. Please visit https://support.apple.com/en-us/HT204137", ClassContent, block},
		{"550 5.7.1 Mail from 192.0.2.1 refused - see http://csi.cloudmark.com/reset-request/", ClassReputation, block},

		// Mimecast
		{"550 Invalid Recipient - https://community.mimecast.com/docs/DOC-1369#550", ClassAddress, bounce},
		{"550 Administrative prohibition - envelope blocked - https://community.mimecast.com/docs/DOC-1369#550", ClassReputation, block},
		{"550 Rejected by header based manually Blocked Senders: ann@example.org", ClassReputation, block},
		{"550 csi.mimecast.org Poor Reputation Sender. - https://community.mimecast.com/docs/DOC-1369#550", ClassReputation, block},
		{"550 Local CT IP Reputation - (reject)", ClassReputation, block},
		{"554 Email rejected due to security policies - https://community.mimecast.com/docs/DOC-1369#554", ClassContent, block},
		{"550 Rejected by header-based Anti-Spoofing policy: ann@example.org", ClassTechnical, block},
		{"550 DMARC Sender Invalid - envelope rejected - https://community.mimecast.com/docs/DOC-1369#550", ClassTechnical, block},
		{"554 Maximum email size exceeded - https://community.mimecast.com/docs/DOC-1369#554", ClassTechnical, block},

		// Barracuda
		{"554 Service unavailable; Client host [192.0.2.1] blocked using Barracuda Reputation; http://www.barracudanetworks.com/reputation/?r=1&ip=192.0.2.1", ClassReputation, block},
		{"550 permanent failure for one or more recipients (bob@example.com:blocked)", ClassReputation, block},
		{"550 permanent failure for one or more recipients (bob@example.com:550 5.1.1 User unknown)", ClassAddress, bounce},
		{"550 email blocked by b.barracudacentral.org", ClassReputation, block},

		// Spamhaus and other lists
		{"554 5.7.1 192.0.2.1 listed at xbl.spamhaus.org", ClassReputation, block},
		{"550 5.7.1 Mail rejected, 192.0.2.1 is listed in dnsbl.sorbs.net", ClassReputation, block},
		{"554 5.7.1 Blocked - see https://www.spamcop.net/bl.shtml?192.0.2.1", ClassReputation, block},

		// Others
		{"554 5.7.1 Reject due to policy restrictions. For explanation visit https://postmaster.gmx.net/en/case?c=r0601", ClassContent, block},
		{"554 No SMTP service. Bad DNS PTR resource record. For explanation visit https://postmaster.gmx.net", ClassTechnical, block},
		{"550 5.1.1 Not our Customer", ClassAddress, bounce},
		{"550 5.1.1 Adresse d au moins un destinataire invalide. Invalid recipient. OFR204_416 [416]", ClassAddress, bounce},
		{"550 5.7.1 Service refuse. Veuillez essayer plus tard. Service refused, please try later. OFR_506 [506]", ClassReputation, block},
		{"550 spam message rejected. Please visit http://help.mail.ru/notspam-support/id?c=x", ClassContent, block},
		{"550 Message was not accepted -- invalid mailbox. Local mailbox bob@mail.ru is unavailable: user not found", ClassAddress, bounce},
		{"550 Mailbox unavailable or access denied [x IP: 192.0.2.1]", ClassMailbox, bounce},
		{"550 Connection frequency limited. http://service.mail.qq.com", ClassVolume, block},
		{"550 Mail content denied. http://service.mail.qq.com", ClassContent, block},
		{"554 DT:SPM 163 mx1,suspected spam", ClassContent, block},
		{"551 5.7.1 Forwarding to remote hosts disabled", ClassReputation, block},
		{"551 user not local; please try <bob@elsewhere.example>", ClassAddress, bounce},
		{"552 Requested mail action aborted: exceeded storage allocation", ClassMailbox, block},
		{"553 sorry, your envelope sender is in my badmailfrom list (#5.7.1)", ClassReputation, block},
		{"550 sorry, no mailbox here by that name. (#5.1.1)", ClassAddress, bounce},
		{"553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", ClassTechnical, block},
		{"550 5.1.1 User bob (bob@example.com) not listed in Domino Directory", ClassAddress, bounce},

		{"550 Domain does not exist: example.org", ClassTechnical, block}, // the sender's: the recipient's has this host
		{"550 5.1.2 <bob@example.com>... Host unknown (Name server: host not found)", ClassAddress, bounce},
		{"550 5.2.0 account disabled temporarily for exceeding receiving limits", ClassVolume, block},
		{"550 Due to extended inactivity new mail is not currently being accepted for this mailbox.", ClassMailbox, bounce},
		{"550 5.1.1 unknown or illegal alias: bob@example.com", ClassAddress, bounce},
		{"550 5.7.1 you have been blocked by the recipient", ClassReputation, block},
		{"550 message rejected due to user rules", ClassUnknown, block},

		// The recipient's own name says nothing.
		{"550 5.1.1 <spam@example.com>: User unknown", ClassAddress, bounce},
		{"550 5.1.1 <rbl-blacklist@reputation.example>: User unknown", ClassAddress, bounce},
		{"550 5.1.1 blocked@example.com", ClassAddress, bounce},
		{"550 5.7.1 no mail for quota@example.com", ClassReputation, block},
		{"554 5.7.1 <user-unknown@example.com>: Relay access denied", ClassTechnical, block},
	} {
		r := Refusal{Reply: c.reply, Status: statusIn(c.reply), Reason: ReplyPerm}
		if class, typ := r.Class(), r.Type(); class != c.class || typ != c.typ {
			t.Errorf("%s\n\tis %s, %s; want %s, %s", c.reply, class, typ, c.class, c.typ)
		}
	}
}

// statusIn gives the enhanced status code of a reply, as relay/deliver reads it.
func statusIn(reply string) string {
	words := strings.Fields(reply)
	if parts := strings.Split(words[1], "."); len(parts) == 3 && parts[0] == "5" {
		return words[1]
	}
	return "5.0.0"
}

// What is told where the words say nothing, or nobody said any.
func TestTypeOfRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		r    Refusal
		want BounceType
	}{
		"bare code to RCPT":           {Refusal{Reply: "550 no", Status: "5.0.0", Reason: ReplyPerm, AtRecipient: true}, TypeBounce},
		"bare code to MAIL or DATA":   {Refusal{Reply: "554 no", Status: "5.0.0", Reason: ReplyPerm}, TypeBlocked},
		"no status at all":            {Refusal{Reply: "550 no", Reason: ReplyPerm, AtRecipient: true}, TypeBounce},
		"5.1.1":                       {Refusal{Reply: "550 5.1.1 no", Status: "5.1.1", Reason: ReplyPerm}, TypeBounce},
		"5.1.8":                       {Refusal{Reply: "550 5.1.8 no", Status: "5.1.8", Reason: ReplyPerm, AtRecipient: true}, TypeBlocked},
		"5.2.0":                       {Refusal{Reply: "550 5.2.0 no", Status: "5.2.0", Reason: ReplyPerm}, TypeBounce},
		"5.2.2":                       {Refusal{Reply: "552 5.2.2 no", Status: "5.2.2", Reason: ReplyPerm, AtRecipient: true}, TypeBlocked},
		"5.2.2, inactive":             {Refusal{Reply: "552 5.2.2 inactive", Status: "5.2.2", Reason: ReplyPerm, AtRecipient: true}, TypeBlocked},
		"5.5.0 to RCPT":               {Refusal{Reply: "550 5.5.0 no", Status: "5.5.0", Reason: ReplyPerm, AtRecipient: true}, TypeBlocked},
		"5.7.1 to RCPT":               {Refusal{Reply: "550 5.7.1 no", Status: "5.7.1", Reason: ReplyPerm, AtRecipient: true}, TypeBlocked},
		"5.9.9":                       {Refusal{Reply: "550 5.9.9 no", Status: "5.9.9", Reason: ReplyPerm, AtRecipient: true}, TypeBlocked},
		"no such domain":              {Refusal{Reply: "no such domain", Status: "5.1.2", Reason: NoDomain}, TypeBounce},
		"null MX":                     {Refusal{Reply: "accepts no mail", Status: "5.1.10", Reason: NullMX}, TypeBounce},
		"no host for mail":            {Refusal{Reply: "no host", Status: "5.4.4", Reason: NoHost}, TypeBlocked},
		"mail loop":                   {Refusal{Reply: "loop", Status: "5.4.6", Reason: MailLoop}, TypeBlocked},
		"needs SMTPUTF8":              {Refusal{Reply: "no", Status: "5.6.7", Reason: Unsupported, AtRecipient: true}, TypeBlocked},
		"greeted with 554":            {Refusal{Reply: "554 no", Status: "5.3.2", Reason: GreetingFail}, TypeBlocked},
		"the account is gone":         {Refusal{Reply: "the sending account no longer exists", Status: "5.7.1", Reason: AccountGone}, TypeBounce},
		"one answer for several":      {Refusal{Reply: "550 5.1.1 user unknown", Status: "5.1.1", Reason: ReplyPerm, Shared: true}, TypeBlocked},
		"one answer for several, 550": {Refusal{Reply: "550 no", Status: "5.0.0", Reason: ReplyPerm, Shared: true}, TypeBlocked},
	} {
		if got := c.r.Type(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestWithoutAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "",
		"no address":               "no address",
		"<a@b.c>: no":              "<>: no",
		"a@b":                      "",
		"x a@b y c@d z":            "x  y  z",
		"(a@b:blocked)":            "(:blocked)",
		"@":                        "",
		"a @ b":                    "a  b",
		"a@b@c d":                  " d",
		"see http://x/?q=a@b, bye": "see http:, bye",
	} {
		if got := withoutAddresses(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzClassify(f *testing.F) {
	f.Add("550 5.1.1 <a@b>: user unknown", "5.1.1", true)
	f.Add("@@@@", "", false)
	f.Fuzz(func(t *testing.T, reply, status string, at bool) {
		r := Refusal{Reply: reply, Status: status, Reason: ReplyPerm, AtRecipient: at}
		switch r.Class() {
		case ClassAddress, ClassMailbox, ClassUnknown:
		case ClassContent, ClassVolume, ClassReputation, ClassTechnical:
			if r.Type() != TypeBlocked {
				t.Errorf("%q is %s and a bounce", reply, r.Class())
			}
		default:
			t.Errorf("class %q", r.Class())
		}
	})
}
