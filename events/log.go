package events

import "go.uber.org/zap"

// Fields gives the one log line of an event: what the webhook says, and what
// it has no field for. Empty fields are left out. The id is the message's, so
// that one filter finds its whole life.
func (e Event) Fields() []zap.Field {
	f := make([]zap.Field, 0, 20)
	text := func(key, value string) {
		if value != "" {
			f = append(f, zap.String(key, value))
		}
	}
	text("event", string(e.Kind))
	text("type", string(e.Type))
	text("id", e.MessageID)
	f = append(f, zap.Int("recipient", e.Recipient))
	text("email", e.Email)
	text("account", e.Account)
	text("smtp_id", e.SMTPID)
	text("reason", string(e.Reason))
	text("status", e.Status)
	text("reply", e.Reply)
	text("class", e.Classification)
	if e.Attempt > 0 {
		f = append(f, zap.Int("attempt", e.Attempt))
	}
	text("host", e.Host)
	text("local_ip", e.IP)
	text("tls", e.TLSVersion)
	text("cipher", e.CipherName)
	if e.CertErr {
		f = append(f, zap.Bool("cert_err", true))
	}
	if e.Age > 0 {
		f = append(f, zap.Duration("age", e.Age))
	}
	text("event_id", e.ID)
	return f
}
