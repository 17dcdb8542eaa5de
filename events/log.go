package events

import "go.uber.org/zap/zapcore"

// MarshalLogObject writes the one log line of an event: what the webhook says,
// and what it has no field for. Empty fields are left out. The id is the
// message's, so that one filter finds its whole life.
func (e *Event) MarshalLogObject(line zapcore.ObjectEncoder) error {
	text := func(key, value string) {
		if value != "" {
			line.AddString(key, value)
		}
	}
	text("event", string(e.Kind))
	text("type", string(e.Type))
	text("id", e.MessageID)
	line.AddInt("recipient", e.Recipient)
	text("email", e.Email)
	text("account", e.Account)
	text("smtp_id", e.SMTPID)
	text("reason", string(e.Reason))
	text("status", e.Status)
	text("reply", e.Reply)
	text("class", e.Classification)
	if e.Attempt > 0 {
		line.AddInt("attempt", e.Attempt)
	}
	text("host", e.Host)
	text("local_ip", e.IP)
	text("tls", e.TLSVersion)
	text("cipher", e.CipherName)
	if e.CertErr {
		line.AddBool("cert_err", true)
	}
	if e.Age > 0 {
		line.AddDuration("age", e.Age)
	}
	text("event_id", e.ID)
	return nil
}
