package relay

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strconv"
	"time"

	"tlsrelay/policy"
)

// The store writes a message once and a delivery twice on the fast path, and
// encoding/json would be a tenth of all that the relay does. What stands here
// writes the same octets, which a test holds it to, and leaves to encoding/json
// what few messages have.

// AppendJSON appends m as json.Marshal writes it.
func (m *Message) AppendJSON(b []byte) ([]byte, error) {
	o := object{b: append(b, '{')}
	o.id("id", m.ID)
	o.text("account", string(m.Account))
	o.time("accepted", m.Accepted)
	o.text("from", m.From.String())
	o.number("size", m.Size)
	o.text("smtp_id", m.SMTPID)
	o.some("client", m.Client)
	o.some("envid", m.EnvelopeID)
	o.some("ret", string(m.Return))
	o.flag("requiretls", m.RequireTLS)
	o.flag("smtputf8", m.SMTPUTF8)
	o.flag("8bit", m.EightBit)
	if len(m.Category) > 0 {
		o.any("category", m.Category)
	}
	if len(m.UniqueArgs) > 0 {
		o.any("unique_args", m.UniqueArgs)
	}
	o.flag("report", m.Report)
	o.flag("headers_only", m.HeadersOnly)
	if m.ReportOf != (MessageID{}) {
		o.id("report_of", m.ReportOf)
	}
	o.number("deliveries", int64(m.Deliveries))
	return o.end()
}

// AppendJSON appends d as json.Marshal writes it.
func (d *Delivery) AppendJSON(b []byte) ([]byte, error) {
	o := object{b: append(b, '{')}
	o.nest("key", func() {
		o.id("message", d.Key.Message)
		o.number("number", int64(d.Key.Number))
	})
	o.text("account", string(d.Account))
	o.nest("lane", func() {
		o.text("destination", d.Lane.Destination)
		o.text("class", string(d.Lane.Class))
	})
	o.key("recipients")
	if d.Recipients == nil {
		o.b = append(o.b, "null"...)
	} else {
		o.list(len(d.Recipients), func(i int) { o.recipient(&d.Recipients[i]) })
	}
	o.time("due", d.Due)
	o.number("attempts", int64(d.Attempts))
	o.flag("held", d.Held)
	if !reflect.ValueOf(&d.History).Elem().IsZero() {
		o.any("history", d.History)
	}
	if d.Last != nil {
		o.nest("last", func() { o.attempt(d.Last) })
	}
	o.flag("delay_told", d.DelayTold)
	return o.end()
}

func (o *object) recipient(r *Recipient) {
	o.text("address", r.Address.String())
	o.number("index", int64(r.Index))
	o.some("state", string(r.State))
	o.some("reply", r.Reply)
	if r.Notify != 0 {
		o.number("notify", int64(r.Notify))
	}
	o.some("orcpt_type", r.OriginalType)
	o.some("orcpt", r.Original)
}

func (o *object) attempt(a *Attempt) {
	o.time("at", a.At)
	o.number("took", int64(a.Took))
	o.text("ruling", string(a.Ruling))
	o.some("reason", string(a.Reason))
	if len(a.Hosts) > 0 {
		o.key("hosts")
		o.list(len(a.Hosts), func(i int) { o.host(&a.Hosts[i]) })
	}
}

func (o *object) host(h *HostEvidence) {
	o.text("host", h.Host)
	o.some("address", h.Address)
	o.text("stage", string(h.Stage))
	o.some("hello", string(h.Hello))
	o.flag("plain", h.Plain)
	o.nest("verdict", func() { o.verdict(&h.Verdict) })
	if h.TLS != nil {
		o.nest("tls", func() { o.session(h.TLS) })
	}
	o.some("mx_auth", string(h.MXAuth))
	o.some("reply", h.Reply)
	o.some("means", h.Means)
}

func (o *object) verdict(v *policy.Verdict) {
	o.text("row", v.Row)
	o.text("action", string(v.Action))
	o.text("class", string(v.Class))
	o.some("reason", string(v.Reason))
	o.flag("clear_later", v.ClearLater)
	if v.Failed != (policy.Demand{}) {
		o.any("failed", v.Failed)
	}
	o.some("note", string(v.Note))
}

func (o *object) session(s *policy.Session) {
	o.text("version", s.Version.String())
	o.text("cipher", s.Cipher)
	o.bool("forward_secret", s.ForwardSecret)
	o.flag("resumed", s.Resumed)
	o.nest("certificate", func() {
		c := &s.Cert
		if len(c.Faults) > 0 {
			o.any("faults", c.Faults)
		}
		o.some("matched", c.Matched)
		o.some("subject", c.Subject)
		o.some("issuer", c.Issuer)
		if !c.NotAfter.IsZero() {
			o.time("not_after", c.NotAfter)
		}
		o.some("sha256", c.SHA256)
	})
}

// object is a JSON object being written.
type object struct {
	b   []byte
	err error // the first
}

func (o *object) end() ([]byte, error) { return append(o.b, '}'), o.err }

func (o *object) key(name string) {
	if o.b[len(o.b)-1] != '{' {
		o.b = append(o.b, ',')
	}
	o.b = append(append(append(o.b, '"'), name...), '"', ':')
}

func (o *object) text(name, value string) {
	o.key(name)
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			o.value(value)
			return
		}
	}
	o.b = append(append(append(o.b, '"'), value...), '"')
}

// some is text that is left out when there is none, flag a bool when false.
func (o *object) some(name, value string) {
	if value != "" {
		o.text(name, value)
	}
}

func (o *object) flag(name string, value bool) {
	if value {
		o.bool(name, value)
	}
}

func (o *object) bool(name string, value bool) {
	o.key(name)
	o.b = strconv.AppendBool(o.b, value)
}

func (o *object) number(name string, value int64) {
	o.key(name)
	o.b = strconv.AppendInt(o.b, value, 10)
}

func (o *object) id(name string, id MessageID) {
	o.key(name)
	o.b = append(base64.RawURLEncoding.AppendEncode(append(o.b, '"'), id[:]), '"')
}

func (o *object) time(name string, t time.Time) {
	o.key(name)
	b, err := t.AppendText(append(o.b, '"'))
	if err != nil {
		o.fail(err)
		return
	}
	o.b = append(b, '"')
}

func (o *object) nest(name string, fields func()) {
	o.key(name)
	o.b = append(o.b, '{')
	fields()
	o.b = append(o.b, '}')
}

func (o *object) list(n int, fields func(i int)) {
	o.b = append(o.b, '[')
	for i := range n {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = append(o.b, '{')
		fields(i)
		o.b = append(o.b, '}')
	}
	o.b = append(o.b, ']')
}

// any leaves a field to encoding/json.
func (o *object) any(name string, v any) {
	o.key(name)
	o.value(v)
}

func (o *object) value(v any) {
	text, err := json.Marshal(v)
	if err != nil {
		o.fail(err)
	}
	o.b = append(o.b, text...)
}

func (o *object) fail(err error) {
	if o.err == nil {
		o.err = err
	}
}
