package events

import "go.uber.org/zap/zapcore"

// MarshalLogObject writes the log line of an event: the fields of the webhook, and those
// that it does not have. Empty fields are left out. The id is that of the message, so that
// one filter finds all of its events; a report has it as report_of.
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
	text("tls", e.tls())
	text("cipher", e.CipherName)
	if e.CertErr {
		line.AddBool("cert_err", true)
	}
	if e.Age > 0 {
		line.AddDuration("age", e.Age)
	}
	text("event_id", e.ID)
	if e.Origin != nil {
		e.Origin.addTo(line)
	}
	return nil
}

func (o *Origin) addTo(line zapcore.ObjectEncoder) {
	for _, field := range [...]struct{ key, value string }{
		{"from", o.From}, {"client", o.Client}, {"key", o.Key}, {"report_of", o.ReportOf},
	} {
		if field.value != "" {
			line.AddString(field.key, field.value)
		}
	}
	if o.Size > 0 {
		line.AddInt64("size", o.Size)
	}
	if o.Report {
		line.AddBool("report", true)
	}
}

// tls is the TLS version of the session, "none" in clear, "" where there was no
// session.
func (e *Event) tls() string {
	if e.TLSVersion == "" && (e.IP != "" || e.Kind == Delivered) {
		return "none"
	}
	return e.TLSVersion
}
