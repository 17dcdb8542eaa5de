package demo

import "fmt"

func settingsWords(patch string) string {
	switch patch {
	case opportunistic:
		return "opportunistic (default)"
	case requireTLS:
		return "require_tls"
	case requireCert:
		return "require_tls, require_valid_cert"
	}
	return "require_tls, version 1.3"
}

func eventWords(e map[string]any) string {
	if e["type"] == "blocked" {
		return fmt.Sprintf("dropped: %v (%v)", e["reason"], e["status"])
	}
	if e["event"] != "delivered" {
		return fmt.Sprint(e["event"])
	}
	if e["tls"] != 1.0 {
		return "delivered in clear"
	}
	if e["cert_err"] == 1.0 {
		return "delivered encrypted (certificate not valid)"
	}
	return "delivered encrypted"
}
