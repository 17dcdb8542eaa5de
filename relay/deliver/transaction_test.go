package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/relaytest"
)

// The ways a transaction can go, by what the host lists.
var ways = map[string][]string{
	"one-flight":     {"PIPELINING", "CHUNKING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN"},
	"pipelined-DATA": {"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN"},
	"stepwise-BDAT":  {"CHUNKING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN"},
	"stepwise-DATA":  {"SIZE", "8BITMIME", "SMTPUTF8", "DSN"},
}

// eachWay runs f against a host that behaves by script, in every way.
func eachWay(t *testing.T, script relaytest.Script, f func(t *testing.T, w *relaytest.World, h *relaytest.Host, e *Engine)) {
	w := relaytest.Start(t)
	for name, keywords := range ways {
		t.Run(name, func(t *testing.T) {
			script := script
			script.Keywords = keywords
			h := w.Host(t, "mx1.example.test", script)
			f(t, w, h, engine(t, w, routeTo(h)))
			if b := h.Breaches(); len(b) > 0 {
				t.Errorf("breaches of protocol: %v", b)
			}
		})
	}
}

func TestTransaction(t *testing.T) {
	eachWay(t, relaytest.Script{}, func(t *testing.T, w *relaytest.World, h *relaytest.Host, e *Engine) {
		big := body(bytes.Repeat([]byte(".A line that begins with a dot and is not the end.\r\n"), 20000)) // over oneFlight
		for i, b := range []body{body(letter), big, body("no line end")} {
			job := jobTo(t, modeT, "bob@example.test", "carol@example.test")
			job.Body = b
			r := e.Deliver(context.Background(), job)
			if how(r) != "tls" || len(r.Outcomes) != 2 || r.Outcomes[1].Failure != nil || !strings.Contains(r.Outcomes[0].Reply.String(), "250 2.0.0 Ok") {
				t.Fatalf("body %d: %+v", i, r)
			}
			if !r.Outcomes[0].Relayed || r.Feedback != relay.Healthy || r.Attempt.Ruling != policy.Allowed {
				t.Errorf("%+v", r)
			}
			m := h.Await(t, i+1)[i]
			want := string(b)
			if !m.Chunked && !strings.HasSuffix(want, "\r\n") {
				want += "\r\n"
			}
			if string(m.Body) != want || m.From != "alice@sender.test" || len(m.To) != 2 || m.Helo != "relay.sender.test" {
				t.Errorf("body %d: got %d octets from %s to %v", i, len(m.Body), m.From, m.To)
			}
		}
		if h.Connections() != 1 {
			t.Errorf("%d connections for three messages", h.Connections())
		}
	})
}

// TestReplies: what each reply of a host that met every demand means.
func TestReplies(t *testing.T) {
	reply := func(code int, text string) relaytest.Reply { return relaytest.Reply{Code: code, Text: text} }
	for _, c := range []struct {
		name   string
		script relaytest.Script
		class  relay.Class
		reach  relay.Reach
		reason events.Reason
		status string
	}{
		{"MAIL 550", relaytest.Script{Mail: reply(550, "5.7.1 no")}, relay.Permanent, relay.ReachMessage, events.ReplyPerm, "5.7.1"},
		{"MAIL 451", relaytest.Script{Mail: reply(451, "4.3.0 later")}, relay.Temporary, relay.ReachMessage, events.ReplyTemp, "4.3.0"},
		{"MAIL 421", relaytest.Script{Mail: reply(421, "4.3.2 bye")}, relay.Temporary, relay.ReachHost, events.ReplyTemp, "4.3.2"},
		{"MAIL 530 in TLS", relaytest.Script{Mail: reply(530, "5.7.0 authenticate")}, relay.Permanent, relay.ReachMessage, events.ReplyPerm, "5.7.0"},
		{"RCPT 550", relaytest.Script{Rcpt: reply(550, "5.1.1 who")}, relay.Permanent, relay.ReachRecipient, events.ReplyPerm, "5.1.1"},
		{"RCPT 550 bare", relaytest.Script{Rcpt: reply(550, "")}, relay.Permanent, relay.ReachRecipient, events.ReplyPerm, "5.0.0"},
		{"RCPT 450", relaytest.Script{Rcpt: reply(450, "4.2.0 grey")}, relay.Temporary, relay.ReachRecipient, events.ReplyTemp, "4.2.0"},
		{"RCPT 452 full", relaytest.Script{Rcpt: reply(452, "4.3.1 disk full")}, relay.Temporary, relay.ReachRecipient, events.ReplyTemp, "4.3.1"},
		{"RCPT 452 at once", relaytest.Script{Rcpt: reply(452, "4.5.3 too many")}, relay.Temporary, relay.ReachRecipient, events.ReplyTemp, "4.5.3"},
		{"RCPT 421", relaytest.Script{Rcpt: reply(421, "4.3.2 bye")}, relay.Temporary, relay.ReachHost, events.ReplyTemp, "4.3.2"},
		{"end 554", relaytest.Script{End: reply(554, "5.6.0 spam")}, relay.Permanent, relay.ReachMessage, events.ReplyPerm, "5.6.0"},
		{"end 451", relaytest.Script{End: reply(451, "4.3.0 later")}, relay.Temporary, relay.ReachMessage, events.ReplyTemp, "4.3.0"},
		{"end silent close", relaytest.Script{End: relaytest.Reply{Do: relaytest.Close}}, relay.Temporary, relay.ReachHost, events.SessionLost, "4.4.2"},
		{"end malformed", relaytest.Script{End: relaytest.Reply{Raw: "yes\r\n"}}, relay.Temporary, relay.ReachHost, events.SessionLost, "4.4.2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachWay(t, c.script, func(t *testing.T, w *relaytest.World, h *relaytest.Host, e *Engine) {
				r := e.Deliver(context.Background(), jobTo(t, modeT))
				f := failureOf(r)
				if f.Class != c.class || f.Reach != c.reach || f.Reason != c.reason || f.Status != c.status || f.Host != h.Name() {
					t.Errorf("%+v", f)
				}
				if r.History.Violated() || r.Attempt.Ruling == policy.Block {
					t.Errorf("replies ran the policy window: %+v", r.History)
				}
			})
		})
	}
}

// TestDataRefused: DATA itself can be refused, when it is sent at all.
func TestDataRefused(t *testing.T) {
	for _, way := range []string{"pipelined-DATA", "stepwise-DATA"} {
		w := relaytest.Start(t)
		h := w.Host(t, "mx1.example.test", relaytest.Script{Keywords: ways[way], Data: relaytest.Reply{Code: 451, Text: "4.3.0 later", Times: 1}})
		e := engine(t, w, routeTo(h))
		if r := e.Deliver(context.Background(), jobTo(t, modeT)); failureOf(r).Status != "4.3.0" {
			t.Errorf("%s: %+v", way, r)
		}
		if r := e.Deliver(context.Background(), jobTo(t, modeT)); how(r) != "tls" || h.Connections() != 1 {
			t.Errorf("%s: after RSET %+v, %d connections", way, r, h.Connections())
		}
	}
}

// TestSomeRecipients: the good ones get it, the bad ones are told why, and the
// session goes on.
func TestSomeRecipients(t *testing.T) {
	script := relaytest.Script{Rcpts: map[string]relaytest.Reply{
		"bad@example.test":  {Code: 550, Text: "5.1.1 who"},
		"slow@example.test": {Code: 450, Text: "4.2.0 grey"},
	}}
	eachWay(t, script, func(t *testing.T, w *relaytest.World, h *relaytest.Host, e *Engine) {
		for i, rcpts := range [][]string{
			{"bad@example.test", "good@example.test", "slow@example.test"},
			{"bad@example.test"}, // nobody left
			{"slow@example.test"},
			{"good@example.test"},
		} {
			r := e.Deliver(context.Background(), jobTo(t, modeT, rcpts...))
			for j, rcpt := range rcpts {
				var class relay.Class
				if f := r.Outcomes[j].Failure; f != nil {
					class = f.Class
				}
				want := map[string]relay.Class{"bad": relay.Permanent, "good": "", "slow": relay.Temporary}[strings.TrimSuffix(rcpt, "@example.test")]
				if class != want {
					t.Errorf("message %d, %s: %q, want %q", i, rcpt, class, want)
				}
			}
		}
		m := h.Await(t, 2)
		if len(m) != 2 || len(m[0].To) != 1 || m[0].To[0].Address != "good@example.test" || string(m[1].Body) != letter {
			t.Errorf("%+v", m)
		}
		if h.Connections() != 1 {
			t.Errorf("%d connections", h.Connections())
		}
	})
}

// TestTooManyRecipients: those beyond the limit follow in further transactions.
func TestTooManyRecipients(t *testing.T) {
	var rcpts []string
	for i := range 7 {
		rcpts = append(rcpts, string(rune('a'+i))+"@example.test")
	}
	for name, script := range map[string]relaytest.Script{
		"452":     {MaxRcpt: 3},
		"RCPTMAX": {MaxRcpt: 3, KeywordsInTLS: []string{"PIPELINING", "LIMITS RCPTMAX=3"}},
		"MAILMAX": {MaxRcpt: 3, KeywordsInTLS: []string{"PIPELINING", "CHUNKING", "LIMITS MAILMAX=1 RCPTMAX=3"}},
		"ours":    {},
	} {
		t.Run(name, func(t *testing.T) {
			w := relaytest.Start(t)
			h := w.Host(t, "mx1.example.test", script)
			e := engine(t, w, routeTo(h), func(o *Options) {
				if name == "ours" {
					o.MaxRecipientsPerTransaction = 3
				}
			})
			r := e.Deliver(context.Background(), jobTo(t, modeT, rcpts...))
			for i, o := range r.Outcomes {
				if o.Failure != nil {
					t.Errorf("%s: %+v", rcpts[i], o.Failure)
				}
			}
			var to []string
			for _, m := range h.Await(t, 3) {
				for _, x := range m.To {
					to = append(to, x.Address)
				}
			}
			if slices.Sort(to); !slices.Equal(to, rcpts) {
				t.Errorf("delivered to %v", to)
			}
			if want := map[string]int{"MAILMAX": 3}[name]; want != 0 && h.Connections() != want || want == 0 && h.Connections() != 1 {
				t.Errorf("%d connections", h.Connections())
			}
		})
	}
}

// TestEarlyRejection: a host that says no in mid-message and hangs up is
// heard, not reported as a broken pipe.
func TestEarlyRejection(t *testing.T) {
	script := relaytest.Script{BodyLimit: 100 << 10, BodyOver: relaytest.Reply{Code: 552, Text: "5.3.4 too big", Hangup: true}}
	eachWay(t, script, func(t *testing.T, w *relaytest.World, h *relaytest.Host, e *Engine) {
		for _, size := range []int{200 << 10, 8 << 20} {
			job := jobTo(t, modeT)
			job.Body = body(bytes.Repeat([]byte("0123456789\r\n"), size/12))
			r := e.Deliver(context.Background(), job)
			if f := failureOf(r); f.Class != relay.Permanent || f.Status != "5.3.4" || f.Reply.Code != 552 {
				t.Errorf("%d octets: %+v", size, f)
			}
		}
	})
}

// TestStalledBody: a host that stops reading costs one command timeout.
func TestStalledBody(t *testing.T) {
	w := relaytest.Start(t)
	for way, keywords := range ways {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			h := w.Host(t, "mx1.example.test", relaytest.Script{Keywords: keywords, BodyLimit: 1000, BodyOver: relaytest.Reply{Do: relaytest.Stall}})
			e := engine(t, w, routeTo(h), hasty)
			job := jobTo(t, modeT)
			job.Body = body(bytes.Repeat([]byte("0123456789\r\n"), 1<<20))
			begin := time.Now()
			r := e.Deliver(context.Background(), job)
			if f := failureOf(r); f.Class != relay.Temporary || f.Reason != events.SessionLost {
				t.Errorf("%+v", f)
			}
			if took := time.Since(begin); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
			h.Close()
		})
	}
}

// TestTarpits: no reply, however slow or long, holds an attempt for more than
// its bounds.
func TestTarpits(t *testing.T) {
	w := relaytest.Start(t)
	drip := relaytest.Reply{Code: 250, Text: strings.Repeat("slowly ", 50), Do: relaytest.Drip, Pace: 50 * time.Millisecond}
	for name, script := range map[string]relaytest.Script{
		"greeting drips":   {Greeting: relaytest.Reply{Code: 220, Text: drip.Text, Do: relaytest.Drip, Pace: drip.Pace}},
		"greeting endless": {Greeting: relaytest.Reply{Code: 220, Do: relaytest.Endless}},
		"EHLO drips":       {EHLO: drip},
		"EHLO endless":     {EHLO: relaytest.Reply{Code: 250, Do: relaytest.Endless}},
		"STARTTLS silent":  {StartTLS: relaytest.Reply{Do: relaytest.Silence}},
		"EHLO in TLS":      {EHLOInTLS: drip},
		"MAIL drips":       {Mail: drip},
		"end endless":      {End: relaytest.Reply{Code: 250, Do: relaytest.Endless}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := w.Host(t, "mx1.example.test", script)
			e := engine(t, w, routeTo(h), hasty)
			begin := time.Now()
			r := e.Deliver(context.Background(), jobTo(t, modeT))
			if how(r) != "defer" {
				t.Errorf("%+v", r)
			}
			if took := time.Since(begin); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
			h.Close()
		})
	}
}

// TestUnknownFate: when the end was sent and nobody answered, no other host
// gets the message (row C11, RFC 5321 §6.1).
func TestUnknownFate(t *testing.T) {
	w := relaytest.Start(t)
	h1 := w.Host(t, "mx1.example.test", relaytest.Script{End: relaytest.Reply{Do: relaytest.Close}})
	h2 := w.Host(t, "mx2.example.test")
	r := engine(t, w, routeTo(h1, h2)).Deliver(context.Background(), jobTo(t, modeT))
	if f := failureOf(r); f.Class != relay.Temporary || f.Reason != events.SessionLost || h2.Connections() != 0 {
		t.Errorf("%+v, %d connections to the second host", f, h2.Connections())
	}
}

// TestNextHost: what may pass at another host is taken there, what is
// refused for good is not.
func TestNextHost(t *testing.T) {
	reply := func(code int) relaytest.Reply { return relaytest.Reply{Code: code, Text: "no"} }
	for name, c := range map[string]struct {
		script relaytest.Script
		second int // messages at the second host
	}{
		"greeting 554": {relaytest.Script{Greeting: reply(554)}, 1},
		"greeting 421": {relaytest.Script{Greeting: reply(421)}, 1},
		"no TLS":       {relaytest.Script{NoTLS: true}, 1},
		"MAIL 451":     {relaytest.Script{Mail: reply(451)}, 1},
		"MAIL 421":     {relaytest.Script{Mail: reply(421)}, 1},
		"MAIL lost":    {relaytest.Script{Mail: relaytest.Reply{Do: relaytest.Close}, Keywords: []string{"SIZE"}}, 1},
		"RCPT 450":     {relaytest.Script{Rcpt: reply(450)}, 1},
		"end 451":      {relaytest.Script{End: reply(451)}, 1},
		"MAIL 550":     {relaytest.Script{Mail: reply(550)}, 0},
		"RCPT 550":     {relaytest.Script{Rcpt: reply(550)}, 0},
		"end 554":      {relaytest.Script{End: reply(554)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := relaytest.Start(t)
			h1, h2 := w.Host(t, "mx1.example.test", c.script), w.Host(t, "mx2.example.test")
			r := engine(t, w, routeTo(h1, h2)).Deliver(context.Background(), jobTo(t, modeT))
			if h2.Accepted() != c.second || (how(r) == "tls") != (c.second == 1) {
				t.Errorf("%d messages at the second host: %+v", h2.Accepted(), r)
			}
		})
	}
}

// TestParameters: a parameter is sent to hosts that list its keyword, and to
// no others.
func TestParameters(t *testing.T) {
	job := jobTo(t, policy.Sender{Account: policy.Settings{RelaxedRequireTLS: true}}, "bob@example.test")
	job.Message.EightBit, job.Message.RequireTLS = true, true
	job.Message.EnvelopeID, job.Message.Return = "id=1+2 x", relay.ReturnHeaders
	r := &job.Delivery.Recipients[0]
	r.Notify, r.OriginalType, r.Original = relay.NotifySuccess|relay.NotifyDelay, "rfc822", "Bob+x@example.test"
	for _, c := range []struct {
		keywords   []string
		mail, rcpt string
	}{
		{[]string{"SIZE", "8BITMIME", "DSN", "REQUIRETLS"},
			"SIZE=54 BODY=8BITMIME REQUIRETLS RET=HDRS ENVID=id+3D1+2B2+20x", "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Bx@example.test"},
		{[]string{}, "", ""},
	} {
		w := relaytest.Start(t)
		h := w.Host(t, "mx1.example.test", relaytest.Script{KeywordsInTLS: c.keywords})
		route := routeTo(h)
		route.Hosts[0].Facts.MX = policy.MXDNSSEC
		if got := engine(t, w, route).Deliver(context.Background(), job); how(got) != "tls" {
			t.Fatalf("%+v", got)
		}
		m := h.Await(t, 1)[0]
		want := strings.ReplaceAll(c.mail, "SIZE=54", "SIZE="+strconv.Itoa(len(letter)))
		if mail, rcpt := strings.Join(m.MailParams, " "), strings.Join(m.To[0].Params, " "); mail != want || rcpt != c.rcpt {
			t.Errorf("MAIL %q, RCPT %q", mail, rcpt)
		}
	}
}

func TestInternationalAddresses(t *testing.T) {
	for _, c := range []struct {
		name, from, to string
		declared       bool
		utf8           bool // the host lists SMTPUTF8
		fate, wire     string
		param          bool
	}{
		{"local part, listed", "alice@sender.test", "jürgen@example.test", true, true, "tls", "jürgen@example.test", true},
		{"local part, not listed", "alice@sender.test", "jürgen@example.test", true, false, "bounce", "", false},
		{"sender, not listed", "jürgen@sender.test", "bob@example.test", true, false, "bounce", "", false},
		{"domain only, not listed", "alice@sender.test", "bob@bücher.test", true, false, "tls", "bob@xn--bcher-kva.test", false},
		{"ASCII", "alice@sender.test", "bob@example.test", false, true, "tls", "bob@example.test", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			keywords := []string{"PIPELINING", "CHUNKING"}
			if c.utf8 {
				keywords = append(keywords, "SMTPUTF8")
			}
			w := relaytest.Start(t)
			h := w.Host(t, "mx1.example.test", relaytest.Script{Keywords: keywords})
			job := jobTo(t, modeT, c.to)
			job.Message.From, job.Message.SMTPUTF8 = address(t, c.from), c.declared
			r := engine(t, w, routeTo(h)).Deliver(context.Background(), job)
			if how(r) != c.fate || c.fate == "bounce" && failureOf(r).Status != "5.6.7" {
				t.Fatalf("%+v", failureOf(r))
			}
			if c.fate == "bounce" {
				return
			}
			m := h.Await(t, 1)[0]
			if m.To[0].Address != c.wire || slices.Contains(m.MailParams, "SMTPUTF8") != c.param {
				t.Errorf("to %s with %v", m.To[0].Address, m.MailParams)
			}
		})
	}
}

// TestSizeLimit: what is larger than SIZE allows is not sent at all.
func TestSizeLimit(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", relaytest.Script{Keywords: []string{"SIZE 10"}})
	r := engine(t, w, routeTo(h)).Deliver(context.Background(), jobTo(t, modeT))
	if f := failureOf(r); f.Class != relay.Permanent || f.Status != "5.3.4" || f.Reach != relay.ReachMessage {
		t.Errorf("%+v", f)
	}
	for _, s := range h.Sessions() {
		for _, c := range s.Commands {
			if strings.HasPrefix(c.Line, "MAIL") {
				t.Errorf("sent %s", c.Line)
			}
		}
	}
}

// TestUnfitHosts: what one host cannot take goes to the next. It is over only
// when no host of the route may yet take it.
func TestUnfitHosts(t *testing.T) {
	small := relaytest.Script{Keywords: []string{"PIPELINING", "SMTPUTF8", "SIZE 10"}}
	ascii := relaytest.Script{Keywords: []string{"PIPELINING", "CHUNKING"}}
	down := relaytest.Script{Greeting: relaytest.Reply{Code: 421, Text: "4.3.2 later"}}
	busy := relaytest.Script{Rcpt: relaytest.Reply{Code: 451, Text: "4.7.1 greylisted"}}
	clear := relaytest.Script{NoTLS: true}
	fit := relaytest.Script{}
	for _, c := range []struct {
		name         string
		to           string
		hosts        []relaytest.Script
		fate, status string
	}{
		{"SIZE, next", "bob@example.test", []relaytest.Script{small, fit}, "tls", ""},
		{"SIZE, all", "bob@example.test", []relaytest.Script{small, small}, "bounce", "5.3.4"},
		{"SIZE, other unreachable", "bob@example.test", []relaytest.Script{small, down}, "defer", "4.3.4"},
		{"SIZE, other unreachable first", "bob@example.test", []relaytest.Script{down, small}, "defer", "4.3.4"},
		{"SIZE, other says later", "bob@example.test", []relaytest.Script{busy, small}, "defer", "4.7.1"},
		{"SIZE, one says later", "bob@example.test", []relaytest.Script{small, busy, small}, "defer", "4.7.1"},
		{"SIZE, other has no TLS", "bob@example.test", []relaytest.Script{small, clear}, "bounce", "5.3.4"},
		{"UTF8, next", "jürgen@example.test", []relaytest.Script{ascii, fit}, "tls", ""},
		{"UTF8, all", "jürgen@example.test", []relaytest.Script{ascii, ascii}, "bounce", "5.6.7"},
		{"UTF8, other unreachable", "jürgen@example.test", []relaytest.Script{ascii, down}, "defer", "4.6.7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := relaytest.Start(t)
			var hosts []*relaytest.Host
			for i, s := range c.hosts {
				hosts = append(hosts, w.Host(t, fmt.Sprintf("mx%d.example.test", i), s))
			}
			e := engine(t, w, routeTo(hosts...))
			for range 2 { // and by way of the idle sessions
				r := e.Deliver(context.Background(), jobTo(t, modeT, c.to))
				if f := failureOf(r); how(r) != c.fate || f.Status != c.status {
					t.Errorf("%s %+v", how(r), f)
				}
			}
		})
	}
}

// TestUnreadableBody: a fault of our own store is temporary, ours, and no
// evidence against anybody.
func TestUnreadableBody(t *testing.T) {
	eachWay(t, relaytest.Script{}, func(t *testing.T, w *relaytest.World, h *relaytest.Host, e *Engine) {
		job := jobTo(t, modeT)
		job.Body = failingBody{body(letter)}
		r := e.Deliver(context.Background(), job)
		f := failureOf(r)
		if f.Class != relay.Temporary || f.Reason != events.Internal || f.Host != "" || strings.Contains(f.Reply.Text, "disk") {
			t.Errorf("%+v", f)
		}
		if h.Accepted() != 0 || r.Feedback == relay.Trouble {
			t.Errorf("%d accepted, feedback %q", h.Accepted(), r.Feedback)
		}
	})
}

type failingBody struct{ body }

func (b failingBody) NewReader() io.Reader {
	return io.MultiReader(bytes.NewReader(b.body[:10]), failingReader{})
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("disk on fire") }
