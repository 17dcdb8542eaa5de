package relay

import (
	"encoding/base64"
	"reflect"

	"tlsrelay/events/jsonobject"
	"tlsrelay/policy"
)

// The store writes a message once and a delivery twice on the fast path. The
// functions here write the octets of encoding/json, which TestAppendJSON holds them
// to, and leave to it what few messages have.

// AppendJSON appends m as json.Marshal writes it.
func (m *Message) AppendJSON(b []byte) ([]byte, error) {
	o := object{jsonobject.Begin(b)}
	o.id("id", m.ID)
	o.Text("account", string(m.Account))
	o.Time("accepted", m.Accepted)
	o.Text("from", m.From.String())
	o.Int("size", m.Size)
	o.Text("smtp_id", m.SMTPID)
	o.TextIfAny("client", m.Client)
	o.TextIfAny("envid", m.EnvelopeID)
	o.TextIfAny("ret", string(m.Return))
	o.Flag("requiretls", m.RequireTLS)
	o.Flag("smtputf8", m.SMTPUTF8)
	o.Flag("8bit", m.EightBit)
	if len(m.Category) > 0 {
		o.Any("category", m.Category)
	}
	if len(m.UniqueArgs) > 0 {
		o.Any("unique_args", m.UniqueArgs)
	}
	o.Flag("report", m.Report)
	o.Flag("headers_only", m.HeadersOnly)
	if m.ReportOf != (MessageID{}) {
		o.id("report_of", m.ReportOf)
	}
	o.Int("deliveries", int64(m.Deliveries))
	return o.End()
}

// AppendJSON appends d as json.Marshal writes it.
func (d *Delivery) AppendJSON(b []byte) ([]byte, error) {
	o := object{jsonobject.Begin(b)}
	o.Object("key", func() {
		o.id("message", d.Key.Message)
		o.Int("number", int64(d.Key.Number))
	})
	o.Text("account", string(d.Account))
	o.Object("lane", func() {
		o.Text("destination", d.Lane.Destination)
		o.Text("class", string(d.Lane.Class))
	})
	if d.Recipients == nil {
		o.Key("recipients")
		o.Octets = append(o.Octets, "null"...)
	} else {
		o.List("recipients", len(d.Recipients), func(i int) { o.recipient(&d.Recipients[i]) })
	}
	o.Time("due", d.Due)
	o.Int("attempts", int64(d.Attempts))
	o.Flag("held", d.Held)
	if !reflect.ValueOf(&d.History).Elem().IsZero() {
		o.Any("history", d.History)
	}
	if d.Last != nil {
		o.Object("last", func() { o.attempt(d.Last) })
	}
	o.Flag("delay_told", d.DelayTold)
	return o.End()
}

func (o *object) recipient(r *Recipient) {
	o.Text("address", r.Address.String())
	o.Int("index", int64(r.Index))
	o.TextIfAny("state", string(r.State))
	o.TextIfAny("reply", r.Reply)
	if r.Notify != 0 {
		o.Int("notify", int64(r.Notify))
	}
	o.TextIfAny("orcpt_type", r.OriginalType)
	o.TextIfAny("orcpt", r.Original)
}

func (o *object) attempt(a *Attempt) {
	o.Time("at", a.At)
	o.Int("took", int64(a.Took))
	o.Text("ruling", string(a.Ruling))
	o.TextIfAny("reason", string(a.Reason))
	if len(a.Hosts) > 0 {
		o.List("hosts", len(a.Hosts), func(i int) { o.host(&a.Hosts[i]) })
	}
}

func (o *object) host(h *HostEvidence) {
	o.Text("host", h.Host)
	o.TextIfAny("address", h.Address)
	o.Text("stage", string(h.Stage))
	o.TextIfAny("hello", string(h.Hello))
	o.Flag("plain", h.Plain)
	o.Object("verdict", func() { o.verdict(&h.Verdict) })
	if h.TLS != nil {
		o.Object("tls", func() { o.session(h.TLS) })
	}
	o.TextIfAny("mx_auth", string(h.MXAuth))
	o.TextIfAny("reply", h.Reply)
	o.TextIfAny("means", h.Means)
}

func (o *object) verdict(v *policy.Verdict) {
	o.Text("row", v.Row)
	o.Text("action", string(v.Action))
	o.Text("class", string(v.Class))
	o.TextIfAny("reason", string(v.Reason))
	o.Flag("clear_later", v.ClearLater)
	if v.Failed != (policy.Demand{}) {
		o.Any("failed", v.Failed)
	}
	o.TextIfAny("note", string(v.Note))
}

func (o *object) session(s *policy.Session) {
	o.Text("version", s.Version.String())
	o.Text("cipher", s.Cipher)
	o.Bool("forward_secret", s.ForwardSecret)
	o.Flag("resumed", s.Resumed)
	o.Object("certificate", func() {
		c := &s.Cert
		if len(c.Faults) > 0 {
			o.Any("faults", c.Faults)
		}
		o.TextIfAny("matched", c.Matched)
		o.TextIfAny("subject", c.Subject)
		o.TextIfAny("issuer", c.Issuer)
		if !c.NotAfter.IsZero() {
			o.Time("not_after", c.NotAfter)
		}
		o.TextIfAny("sha256", c.SHA256)
	})
}

// object is a JSON object that is being written.
type object struct{ jsonobject.Writer }

func (o *object) id(name string, id MessageID) {
	o.Key(name)
	o.Octets = append(base64.RawURLEncoding.AppendEncode(append(o.Octets, '"'), id[:]), '"')
}
