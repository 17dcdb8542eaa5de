package api

import (
	"slices"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/api/rest"
)

// public is a call of the public API: method, path, the scope its key must hold, the
// status code of success, and who answers. A success without a value is 204 whatever
// the table says.
func public(method, path string, scope account.Scope, success int, call rest.Call) rest.Route {
	return rest.Route{Method: method, Path: path, Scope: scope, Success: success, Call: call}
}

// operators is a call of the operator, with the names of its parameters, in its query
// or its body.
func operators(method, path string, call rest.Call, params ...string) rest.Route {
	return rest.Route{Method: method, Path: path, Scope: rest.Operator, Success: 200, Call: call, Params: params}
}

// routes is every call of the two surfaces.
func (s *server) routes() []rest.Route {
	const (
		tls      = "/v3/user/settings/enforced_tls"
		keys     = "/v3/api_keys"
		subusers = "/v3/subusers"
		hooks    = "/v3/user/webhooks/event/settings"
		blocks   = "/v3/suppression/blocks"
		ours     = "/relay/v1"
		admin    = "/admin/v1"
		accounts = admin + "/accounts"
		queue    = admin + "/queue"
	)
	settings := []string{
		"require_tls", "require_valid_cert", "version", "on_violation", "require_forward_secrecy",
		"mx_auth_required", "requiretls", "requiretls_relaxed", "enforce_on_subusers",
	}
	small, medium, large := rest.Small, rest.Medium, rest.Large
	deliveries := []string{"all", "message", "destination", "account", "reason"}
	return []rest.Route{
		public("GET", tls, account.EnforcedTLSRead, 200, s.getTLS),
		public("PATCH", tls, account.EnforcedTLSUpdate, 200, small(s.patchTLS)),

		public("GET", "/v3/scopes", rest.AnyKey, 200, s.listScopes),

		public("GET", keys, account.KeysRead, 200, s.listKeys),
		public("POST", keys, account.KeysCreate, 201, medium(s.createKey)),
		public("GET", keys+"/{id}", account.KeysRead, 200, s.getKey),
		public("PATCH", keys+"/{id}", account.KeysUpdate, 200, small(s.renameKey)),
		public("PUT", keys+"/{id}", account.KeysUpdate, 200, medium(s.replaceKey)),
		public("DELETE", keys+"/{id}", account.KeysDelete, 204, s.deleteKey),

		public("GET", subusers, account.SubusersRead, 200, parents(s.listSubusers)),
		public("POST", subusers, account.SubusersCreate, 201, parents(small(s.createSubuser))),
		public("GET", subusers+"/{name}", account.SubusersRead, 200, parents(s.getSubuser)),
		public("PATCH", subusers+"/{name}", account.SubusersUpdate, 204, parents(small(s.patchSubuser))),
		public("DELETE", subusers+"/{name}", account.SubusersDelete, 204, parents(s.deleteSubuser)),
		public("PUT", subusers+"/{name}/ips", account.SubusersUpdate, 200, parents(rest.List("ips", s.putSubuserIPs))),

		public("GET", hooks, account.WebhooksRead, 200, s.hooks.Get),
		public("POST", hooks, account.WebhooksCreate, 201, small(s.hooks.Create)),
		public("PATCH", hooks, account.WebhooksUpdate, 200, small(s.hooks.Patch)),
		public("GET", hooks+"/all", account.WebhooksRead, 200, s.hooks.List),
		public("GET", hooks+"/signed", account.WebhooksRead, 200, s.hooks.GetSigning),
		public("PATCH", hooks+"/signed", account.WebhooksUpdate, 200, small(s.hooks.PatchSigning)),
		public("GET", hooks+"/signed/{id}", account.WebhooksRead, 200, s.hooks.GetSigning),
		public("PATCH", hooks+"/signed/{id}", account.WebhooksUpdate, 200, small(s.hooks.PatchSigning)),
		public("GET", hooks+"/{id}", account.WebhooksRead, 200, s.hooks.Get),
		public("PATCH", hooks+"/{id}", account.WebhooksUpdate, 200, small(s.hooks.Patch)),
		public("DELETE", hooks+"/{id}", account.WebhooksDelete, 204, s.hooks.Delete),
		public("POST", "/v3/user/webhooks/event/test", account.WebhooksTestCreate, 204, small(s.hooks.Test)),

		public("GET", blocks, account.BlocksRead, 200, s.lists.In(s.mail.ListBlocks)),
		public("DELETE", blocks, account.BlocksDelete, 204, s.lists.In(large(s.mail.DeleteBlocks))),
		public("GET", blocks+"/{email}", account.BlocksRead, 200, s.mail.GetBlock),
		public("DELETE", blocks+"/{email}", account.BlocksDelete, 204, s.mail.DeleteBlock),

		public("POST", ours+"/check", account.EnforcedTLSRead, 200, small(s.check)),
		public("GET", ours+"/settings", account.EnforcedTLSRead, 200, s.getSettings),
		public("PATCH", ours+"/settings", account.EnforcedTLSUpdate, 200, small(s.patchSettings)),
		public("GET", ours+"/messages/{id}", account.MessagesRead, 200, s.mail.Message),
		public("GET", ours+"/blocks/{email}", account.BlocksRead, 200, s.mail.BlockEvidence),
		public("GET", ours+"/domains/{domain}", account.EnforcedTLSRead, 200, s.getDomain),
		public("PUT", ours+"/domains/{domain}", account.EnforcedTLSUpdate, 200, small(s.putDomain)),
		public("DELETE", ours+"/domains/{domain}", account.EnforcedTLSUpdate, 204, s.deleteDomain),
		public("GET", ours+"/openapi.json", rest.Open, 200, s.openAPI),

		operators("GET", accounts, s.listAccounts),
		operators("POST", accounts, small(s.createAccount), "username", "customer", "email"),
		operators("GET", accounts+"/{account}", s.getAccount),
		operators("PATCH", accounts+"/{account}", small(s.patchAccount), append(settings, "disabled", "max_recipients_per_hour")...),
		operators("DELETE", accounts+"/{account}", s.deleteAccount),
		operators("GET", accounts+"/{account}/keys", s.listAccountKeys),
		operators("POST", accounts+"/{account}/keys", medium(s.createAccountKey), "name", "scopes"),
		operators("DELETE", admin+"/keys/{id}", s.revokeKey),
		operators("GET", accounts+"/{account}/blocks", s.mail.ListRows, "email", "start_time", "end_time", "limit", "offset"),
		operators("POST", accounts+"/{account}/blocks/remove", large(s.mail.RemoveRows), "all", "emails"),

		operators("POST", admin+"/check", small(s.checkFor), "domain", "account", "require_tls", "require_valid_cert", "version"),

		operators("GET", queue, s.mail.Overview, "after", "limit"),
		operators("GET", queue+"/messages", s.mail.Queued, "message", "destination", "account", "held", "limit", "offset"),
		operators("GET", admin+"/messages/{id}", s.mail.AnyMessage),
		operators("POST", queue+"/retry", small(s.mail.Act(relay.ActRetry)), deliveries...),
		operators("POST", queue+"/hold", small(s.mail.Act(relay.ActHold)), deliveries...),
		operators("POST", queue+"/release", small(s.mail.Act(relay.ActRelease)), deliveries...),
		operators("POST", queue+"/drop", small(s.mail.Act(relay.ActDrop)), deliveries...),
		operators("GET", admin+"/lanes", s.mail.Destinations, "limit"),

		operators("GET", admin+"/guard", s.mail.GetGuard),
		operators("POST", admin+"/guard/release", s.mail.ReleaseGuard),

		operators("GET", admin+"/webhooks", s.listEndpoints),
	}
}

// ofSurface gives the operator's routes, or all others.
func ofSurface(routes []rest.Route, operators bool) []rest.Route {
	return slices.DeleteFunc(routes, func(to rest.Route) bool { return (to.Scope == rest.Operator) != operators })
}
