package account

import "strings"

// foreign is the scopes that SendGrid has and this relay has no use for. Keys
// may have them, because programs written for SendGrid ask for them; they open
// nothing. The names are those of twilio/sendgrid-oai (the scopes of
// tsg_scopes_v3, tsg_teammates_v3 and tsg_sso_v3), of Twilio's page "API Key
// Permissions", and of what GET /v3/scopes answers as Terraform providers for
// SendGrid record it.
var foreign = readForeign(`
	access_settings.activity read
	access_settings.whitelist *
	alerts *
	asm.groups *
	asm.groups.suppressions *
	asm.suppressions.global *
	billing *
	browsers.stats read
	categories *
	categories.stats read
	categories.stats.sums read
	clients.desktop.stats read
	clients.phone.stats read
	clients.stats read
	clients.tablet.stats read
	clients.webmail.stats read
	credentials *
	design_library *
	devices.stats read
	di.bounce_block_classification read
	email_activity read
	email_testing read write
	geo.stats read
	ips *
	ips.assigned read
	ips.pools *
	ips.pools.ips *
	ips.warmup *
	mail.batch *
	mail_settings read
	mail_settings.address_whitelist *
	mail_settings.bcc *
	mail_settings.bounce_purge *
	mail_settings.footer *
	mail_settings.forward_bounce *
	mail_settings.forward_spam *
	mail_settings.plain_content *
	mail_settings.spam_check *
	mail_settings.template *
	mailbox_providers.stats read
	marketing read
	marketing.automation read
	marketing_campaigns *
	newsletter *
	partner_settings read
	partner_settings.new_relic *
	partner_settings.sendwithus *
	recipients.erasejob create read
	signup trigger_confirmation
	sso.settings *
	sso.teammates create update
	stats read
	stats.global read
	subusers.credits *
	subusers.credits.remaining *
	subusers.monitor *
	subusers.reputations read
	subusers.stats read
	subusers.stats.monthly read
	subusers.stats.sums read
	subusers.summary read
	suppression *
	suppression.bounces *
	suppression.invalid_emails *
	suppression.spam_reports *
	suppression.unsubscribes *
	teammates *
	templates *
	templates.versions *
	templates.versions.activate *
	tracking_settings read
	tracking_settings.click *
	tracking_settings.google_analytics *
	tracking_settings.open *
	tracking_settings.subscription *
	ui confirm_email provision signup_complete
	user.account read
	user.credits read
	user.email *
	user.multifactor_authentication *
	user.password *
	user.profile *
	user.scheduled_sends *
	user.timezone *
	user.username *
	user.webhooks.event.test delete
	user.webhooks.parse.settings *
	user.webhooks.parse.stats read
	validations.email create read
	whitelabel *
`)

// readForeign reads lines of a resource and its verbs; * is the usual four.
func readForeign(table string) map[Scope]bool {
	all := make(map[Scope]bool)
	for line := range strings.Lines(table) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		verbs := words[1:]
		if verbs[0] == "*" {
			verbs = []string{"create", "read", "update", "delete"}
		}
		for _, verb := range verbs {
			all[Scope(words[0]+"."+verb)] = true
		}
	}
	return all
}

// Condition reports whether SendGrid gives s to keys of its own accord: such a
// scope says how an account logs in and whose addresses it may use, and permits
// nothing.
func (s Scope) Condition() bool {
	switch s {
	case "2fa_required", "2fa_exempt", "sender_verification_eligible", "sender_verification_exempt", "sender_verification_legacy":
		return true
	}
	return false
}

// Grantable reports whether a key may have s: a scope of this relay, or one of
// SendGrid's that opens nothing here.
func (s Scope) Grantable() bool { return s.Known() || foreign[s] || s.Condition() }
