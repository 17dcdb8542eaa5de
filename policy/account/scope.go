package account

import "slices"

// Scope is one permission of a key, by SendGrid's name for it.
type Scope string

// The scopes that open something here. MessagesRead is our own; the others are
// SendGrid's.
const (
	MailSend           Scope = "mail.send"
	EnforcedTLSRead    Scope = "user.settings.enforced_tls.read"
	EnforcedTLSUpdate  Scope = "user.settings.enforced_tls.update"
	KeysCreate         Scope = "api_keys.create"
	KeysRead           Scope = "api_keys.read"
	KeysUpdate         Scope = "api_keys.update"
	KeysDelete         Scope = "api_keys.delete"
	SubusersCreate     Scope = "subusers.create"
	SubusersRead       Scope = "subusers.read"
	SubusersUpdate     Scope = "subusers.update"
	SubusersDelete     Scope = "subusers.delete"
	WebhooksCreate     Scope = "user.webhooks.event.settings.create"
	WebhooksRead       Scope = "user.webhooks.event.settings.read"
	WebhooksUpdate     Scope = "user.webhooks.event.settings.update"
	WebhooksDelete     Scope = "user.webhooks.event.settings.delete"
	WebhooksTestCreate Scope = "user.webhooks.event.test.create"
	WebhooksTestRead   Scope = "user.webhooks.event.test.read"
	WebhooksTestUpdate Scope = "user.webhooks.event.test.update"
	BlocksCreate       Scope = "suppression.blocks.create"
	BlocksRead         Scope = "suppression.blocks.read"
	BlocksUpdate       Scope = "suppression.blocks.update"
	BlocksDelete       Scope = "suppression.blocks.delete"
	MessagesRead       Scope = "messages.read"
)

// AllScopes lists every scope, sorted by name.
func AllScopes() []Scope {
	all := []Scope{
		MailSend, EnforcedTLSRead, EnforcedTLSUpdate,
		KeysCreate, KeysRead, KeysUpdate, KeysDelete,
		SubusersCreate, SubusersRead, SubusersUpdate, SubusersDelete,
		WebhooksCreate, WebhooksRead, WebhooksUpdate, WebhooksDelete,
		WebhooksTestCreate, WebhooksTestRead, WebhooksTestUpdate,
		BlocksCreate, BlocksRead, BlocksUpdate, BlocksDelete,
		MessagesRead,
	}
	slices.Sort(all)
	return all
}

// Known reports whether s is a scope of this relay.
func (s Scope) Known() bool { return slices.Contains(AllScopes(), s) }
