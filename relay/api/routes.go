package api

import "tlsrelay/policy/account"

// routes is every call of the API: method, path, the scope its key must hold,
// the status code of success, and who answers. A success without a value is
// 204 whatever stands here.
func (s *server) routes() []route {
	const (
		tls      = "/v3/user/settings/enforced_tls"
		keys     = "/v3/api_keys"
		subusers = "/v3/subusers"
		hooks    = "/v3/user/webhooks/event/settings"
		blocks   = "/v3/suppression/blocks"
		ours     = "/relay/v1"
	)
	return []route{
		{"GET", tls, account.EnforcedTLSRead, 200, s.getTLS},
		{"PATCH", tls, account.EnforcedTLSUpdate, 200, s.patchTLS},

		{"GET", "/v3/scopes", anyKey, 200, s.listScopes},

		{"GET", keys, account.KeysRead, 200, s.listKeys},
		{"POST", keys, account.KeysCreate, 201, s.createKey},
		{"GET", keys + "/{id}", account.KeysRead, 200, s.getKey},
		{"PATCH", keys + "/{id}", account.KeysUpdate, 200, s.renameKey},
		{"PUT", keys + "/{id}", account.KeysUpdate, 200, s.replaceKey},
		{"DELETE", keys + "/{id}", account.KeysDelete, 204, s.deleteKey},

		{"GET", subusers, account.SubusersRead, 200, s.listSubusers},
		{"POST", subusers, account.SubusersCreate, 201, s.createSubuser},
		{"GET", subusers + "/{name}", account.SubusersRead, 200, s.getSubuser},
		{"PATCH", subusers + "/{name}", account.SubusersUpdate, 204, s.patchSubuser},
		{"DELETE", subusers + "/{name}", account.SubusersDelete, 204, s.deleteSubuser},
		{"PUT", subusers + "/{name}/ips", account.SubusersUpdate, 200, s.putSubuserIPs},

		{"GET", hooks, account.WebhooksRead, 200, s.getOldestWebhook},
		{"POST", hooks, account.WebhooksCreate, 201, s.createWebhook},
		{"PATCH", hooks, account.WebhooksUpdate, 200, s.patchOldestWebhook},
		{"GET", hooks + "/all", account.WebhooksRead, 200, s.listWebhooks},
		{"GET", hooks + "/signed", account.WebhooksRead, 200, s.getOldestSigning},
		{"PATCH", hooks + "/signed", account.WebhooksUpdate, 200, s.patchOldestSigning},
		{"GET", hooks + "/signed/{id}", account.WebhooksRead, 200, s.getSigning},
		{"PATCH", hooks + "/signed/{id}", account.WebhooksUpdate, 200, s.patchSigning},
		{"GET", hooks + "/{id}", account.WebhooksRead, 200, s.getWebhook},
		{"PATCH", hooks + "/{id}", account.WebhooksUpdate, 200, s.patchWebhook},
		{"DELETE", hooks + "/{id}", account.WebhooksDelete, 204, s.deleteWebhook},
		{"POST", "/v3/user/webhooks/event/test", account.WebhooksTestCreate, 204, s.testWebhook},

		{"GET", blocks, account.BlocksRead, 200, s.listBlocks},
		{"DELETE", blocks, account.BlocksDelete, 204, s.deleteBlocks},
		{"GET", blocks + "/{email}", account.BlocksRead, 200, s.getBlock},
		{"DELETE", blocks + "/{email}", account.BlocksDelete, 204, s.deleteBlock},

		{"POST", ours + "/check", account.EnforcedTLSRead, 200, s.check},
		{"GET", ours + "/settings", account.EnforcedTLSRead, 200, s.getSettings},
		{"PATCH", ours + "/settings", account.EnforcedTLSUpdate, 200, s.patchSettings},
		{"GET", ours + "/messages/{id}", account.MessagesRead, 200, s.getMessage},
		{"GET", ours + "/blocks/{email}", account.BlocksRead, 200, s.getBlockEvidence},
		{"GET", ours + "/domains/{domain}", account.EnforcedTLSRead, 200, s.getDomain},
		{"PUT", ours + "/domains/{domain}", account.EnforcedTLSUpdate, 200, s.putDomain},
		{"DELETE", ours + "/domains/{domain}", account.EnforcedTLSUpdate, 204, s.deleteDomain},
		{"GET", ours + "/openapi.json", open, 200, s.openAPI},
	}
}
