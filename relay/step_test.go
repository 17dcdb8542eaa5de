package relay

import (
	"slices"
	"testing"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
)

var (
	accepted = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	schedule = Schedule{RetryAfter: 5 * time.Minute, RetryMax: 4 * time.Hour, Lifetime: 72 * time.Hour, DelayAfter: 4 * time.Hour}
	session  = events.Session{LocalIP: "192.0.2.10", Host: "mx.example.test", TLSVersion: "1.3"}
)

func mustAddress(s string) Address {
	a, err := ParseAddress(s, true)
	if err != nil {
		panic(err)
	}
	return a
}

func testMessage() Message {
	return Message{
		ID: NewMessageID(accepted), Account: "7", Accepted: accepted,
		From: mustAddress("sender@example.org"), SMTPID: "<1@example.org>", Deliveries: 1,
	}
}

// delivery has one waiting recipient per notify value.
func testDelivery(m Message, class policy.Class, notify ...Notify) Delivery {
	var rcpts []Recipient
	for i, n := range notify {
		rcpts = append(rcpts, Recipient{Address: mustAddress("r@example.test"), Index: i, Notify: n})
	}
	ds := Split(m, rcpts, func(string) policy.Class { return class })
	ds[0].Attempts = 1
	return ds[0]
}

var (
	took     = Outcome{Reply: Reply{250, "2.0.0", "ok"}, Session: session}
	tempfail = &Failure{Temporary, ReachRecipient, events.ReplyTemp, Reply{451, "4.7.1", "later"}, "4.7.1", "mx.example.test"}
	permfail = &Failure{Permanent, ReachRecipient, events.ReplyPerm, Reply{550, "5.1.1", "no such user"}, "5.1.1", "mx.example.test"}
	refused  = &Failure{Refused, ReachDestination, events.StartTLSNotOffered, Reply{Text: events.TLSBlocked + ": starttls_not_offered"}, "5.7.10", ""}
	silent   = &Failure{Temporary, ReachDestination, events.ConnectFail, Reply{Text: "connection timed out"}, "4.4.1", ""}
	violated = policy.History{Since: accepted, Violation: policy.HostVerdict{Host: "mx.example.test", Verdict: policy.Verdict{
		Reason: events.TLSVersion, Failed: policy.Demand{Requirement: policy.MinimumVersion, Source: policy.FromAccount}}}}
)

// permanent is a refusal in a host's words.
func permanent(reach Reach, code int, enhanced, text string) *Failure {
	status := enhanced
	if status == "" {
		status = "5.0.0"
	}
	return &Failure{Permanent, reach, events.ReplyPerm, Reply{code, enhanced, text}, status, "mx.example.test"}
}

func failed(f *Failure) Outcome { return Outcome{Failure: f, Reply: f.Reply, Session: session} }

func TestStep(t *testing.T) {
	o, enc := policy.ClassOpportunistic, policy.ClassEncrypt
	for _, c := range []struct {
		name    string
		class   policy.Class
		notify  Notify
		outcome Outcome
		history policy.History
		after   time.Duration // since acceptance

		state  State
		event  events.Kind
		typ    events.BounceType
		status string // of the event
		reason string // as the webhook shows it, for bounces
		action Action // of the notice, "" for none
		sync   bool
	}{
		{"delivered", o, 0, took, policy.History{}, 0, Delivered, events.Delivered, "", "", "", "", false},
		{"delivered, success report asked", o, NotifySuccess, took, policy.History{}, 0, Delivered, events.Delivered, "", "", "", ActionRelayed, true},
		{"delivered, next hop reports", o, NotifySuccess, Outcome{Relayed: true, Session: session}, policy.History{}, 0, Delivered, events.Delivered, "", "", "", "", false},
		{"permanent", o, 0, failed(permfail), policy.History{}, 0, Bounced, events.Bounce, events.TypeBounce, "5.1.1", "550 5.1.1 no such user", ActionFailed, true},
		{"permanent, never tell", o, NotifyNever, failed(permfail), policy.History{}, 0, Bounced, events.Bounce, events.TypeBounce, "5.1.1", "550 5.1.1 no such user", "", true},
		{"refused for spam", o, 0, failed(permanent(ReachMessage, 554, "5.7.1", "spam")), policy.History{}, 0, Blocked, events.Bounce, events.TypeBlocked, "5.7.1", "554 5.7.1 spam", ActionFailed, true},
		{"refused for reputation, under a demand", enc, 0, failed(permanent(ReachRecipient, 550, "5.7.1", "blocked using a list")), policy.History{}, 0, Blocked, events.Bounce, events.TypeBlocked, "5.7.1", "550 5.7.1 blocked using a list", ActionFailed, true},
		{"mailbox full", o, 0, failed(permanent(ReachRecipient, 552, "5.2.2", "full")), policy.History{}, 0, Blocked, events.Bounce, events.TypeBlocked, "5.2.2", "552 5.2.2 full", ActionFailed, true},
		{"bare refusal at RCPT", o, 0, failed(permanent(ReachRecipient, 550, "", "no")), policy.History{}, 0, Bounced, events.Bounce, events.TypeBounce, "5.0.0", "550 no", ActionFailed, true},
		{"bare refusal of the message", o, 0, failed(permanent(ReachMessage, 554, "", "no")), policy.History{}, 0, Blocked, events.Bounce, events.TypeBlocked, "5.0.0", "554 no", ActionFailed, true},
		{"refused by policy", enc, 0, failed(refused), policy.History{}, 0, Blocked, events.Bounce, events.TypeBlocked, "5.7.10", events.TLSBlocked, ActionFailed, true},
		{"temporary", o, 0, failed(tempfail), policy.History{}, time.Hour, Waiting, events.Deferred, "", "", "", "", true},
		{"temporary, delay report asked, early", o, NotifyDelay, failed(tempfail), policy.History{}, time.Hour, Waiting, events.Deferred, "", "", "", "", true},
		{"temporary, delay report asked, late", o, NotifyDelay, failed(tempfail), policy.History{}, 5 * time.Hour, Waiting, events.Deferred, "", "", "", ActionDelayed, true},
		{"lifetime over on a reply", o, 0, failed(tempfail), policy.History{}, 72 * time.Hour, Blocked, events.Bounce, events.TypeBlocked, "5.4.7", "451 4.7.1 later", ActionFailed, true},
		{"lifetime over in silence", enc, 0, failed(silent), policy.History{}, 73 * time.Hour, Blocked, events.Bounce, events.TypeBlocked, "5.4.7", "connection timed out", ActionFailed, true},
		{"lifetime over with TLS evidence", enc, 0, failed(silent), violated, 72 * time.Hour, Blocked, events.Bounce, events.TypeBlocked, "5.7.4", events.TLSBlocked, ActionFailed, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := testMessage()
			d := testDelivery(m, c.class, c.notify)
			now := accepted.Add(c.after)
			tr := d.Step(m, Result{Outcomes: []Outcome{c.outcome}, History: c.history}, now, schedule)

			if got := tr.After.Recipients[0].State; got != c.state || tr.Done != (c.state != Waiting) {
				t.Errorf("state %q, done %v", got, tr.Done)
			}
			if d.Recipients[0].State != Waiting {
				t.Error("the delivery before the step was changed")
			}
			e := tr.Events[0]
			if len(tr.Events) != 1 || e.Kind != c.event || e.Type != c.typ || e.Status != c.status {
				t.Errorf("events %+v", tr.Events)
			}
			if c.typ != "" && e.Reply != c.reason {
				t.Errorf("reason %q, want %q", e.Reply, c.reason)
			}
			if blocked := c.typ == events.TypeBlocked; (len(tr.Blocks) == 1) != blocked {
				t.Errorf("block rows %+v", tr.Blocks)
			} else if blocked && (tr.Blocks[0].Reason != c.reason || tr.Blocks[0].Status != c.status) {
				t.Errorf("block row %+v", tr.Blocks[0])
			}
			switch {
			case (tr.Notice != nil) != (c.action != ""):
				t.Errorf("notice %+v", tr.Notice)
			case tr.Notice != nil && tr.Notice.Recipients[0].Action != c.action:
				t.Errorf("action %s", tr.Notice.Recipients[0].Action)
			case tr.Notice != nil && tr.Notice.Recipients[0].Demand != (c.reason == events.TLSBlocked):
				t.Errorf("a demand ended it: %v", tr.Notice.Recipients[0].Demand)
			case tr.Notice != nil && c.class == enc && !tr.Notice.HeadersOnly:
				t.Error("a report on mail under a TLS demand carries the body")
			}
			if tr.Sync != c.sync {
				t.Errorf("sync %v", tr.Sync)
			}
			if c.state == Waiting && !tr.After.Due.After(now) {
				t.Errorf("due %v, not after %v", tr.After.Due, now)
			}
		})
	}
}

// One answer to the message of several recipients is about none of them; two
// answers to RCPT are about one each.
func TestSharedRefusal(t *testing.T) {
	unknown := failed(permanent(ReachMessage, 550, "5.1.1", "user unknown"))
	atRcpt := failed(permfail)
	for name, c := range map[string]struct {
		outcomes []Outcome
		want     []State
	}{
		"both at the end": {[]Outcome{unknown, unknown}, []State{Blocked, Blocked}},
		"one at the end":  {[]Outcome{atRcpt, unknown}, []State{Bounced, Bounced}},
		"both at RCPT":    {[]Outcome{atRcpt, atRcpt}, []State{Bounced, Bounced}},
		"one delivered":   {[]Outcome{took, unknown}, []State{Delivered, Bounced}},
	} {
		m := testMessage()
		d := testDelivery(m, policy.ClassOpportunistic, 0)
		second := d.Recipients[0]
		second.Index = 1
		d.Recipients = append(d.Recipients, second)
		tr := d.Step(m, Result{Outcomes: c.outcomes}, accepted, schedule)
		var got []State
		blocked := 0
		for _, r := range tr.After.Recipients {
			got = append(got, r.State)
			if r.State == Blocked {
				blocked++
			}
		}
		if !slices.Equal(got, c.want) || len(tr.Blocks) != blocked {
			t.Errorf("%s: %v with %d block rows, want %v", name, got, len(tr.Blocks), c.want)
		}
	}
}

// TestFailAll: the end of the policy window decides also where nobody could
// be asked, but not on a fault of our own.
func TestFailAll(t *testing.T) {
	m := testMessage()
	dns := Failure{Temporary, ReachDestination, events.DNSFail, Reply{Text: "SERVFAIL"}, "4.4.3", ""}
	own := Failure{Temporary, ReachMessage, events.Internal, Reply{Text: "temporary fault of the relay"}, "4.3.0", ""}
	gone := Failure{Permanent, ReachDestination, events.NoDomain, Reply{Text: "no such domain"}, "5.1.2", ""}
	windowed := violated
	windowed.Ends = accepted.Add(24 * time.Hour)
	for _, c := range []struct {
		name    string
		failure Failure
		history policy.History
		after   time.Duration
		ruling  policy.Ruling
		state   State
		status  string
	}{
		{"no evidence", dns, policy.History{}, 48 * time.Hour, policy.Unreached, Waiting, ""},
		{"within the window", dns, windowed, 24*time.Hour - 1, policy.Unreached, Waiting, ""},
		{"end of the window", dns, windowed, 24 * time.Hour, policy.Block, Blocked, "5.7.4"},
		{"held by on_violation: defer", dns, violated, 48 * time.Hour, policy.Unreached, Waiting, ""},
		{"a fault of our own", own, windowed, 48 * time.Hour, policy.Unreached, Waiting, ""},
		{"the domain is gone", gone, windowed, 48 * time.Hour, policy.Unreached, Bounced, "5.1.2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := testDelivery(m, policy.ClassEncrypt, 0)
			d.History = c.history
			now := accepted.Add(c.after)
			r := FailAll(d, c.failure, now)
			tr := d.Step(m, r, now, schedule)
			if got := tr.After.Recipients[0].State; r.Attempt.Ruling != c.ruling || got != c.state || tr.Events[0].Status != c.status {
				t.Errorf("%s, %q, %+v", r.Attempt.Ruling, got, tr.Events)
			}
			if c.state == Waiting && tr.After.History.Since != c.history.Since {
				t.Errorf("history %+v", tr.After.History)
			}
			if c.state == Blocked && (tr.Blocks[0].Reason != events.TLSBlocked || r.Attempt.Reason != events.TLSVersion) {
				t.Errorf("%+v, %s", tr.Blocks, r.Attempt.Reason)
			}
		})
	}
}

// TestReportsOnDemands: no report returns the body of a message on which a
// demand stood, though none did when it came.
func TestReportsOnDemands(t *testing.T) {
	m := testMessage()
	d := testDelivery(m, policy.ClassOpportunistic, 0)
	outcome := Outcome{Failure: &Failure{Class: Permanent, Status: "5.1.1", Reply: Reply{Code: 550}}}
	if tr := d.Step(m, Result{Outcomes: []Outcome{outcome}}, accepted, schedule); tr.Notice.HeadersOnly {
		t.Error("nothing was demanded, and yet the body is kept back")
	}
	if tr := d.Step(m, Result{Outcomes: []Outcome{outcome}, Demanding: true}, accepted, schedule); !tr.Notice.HeadersOnly {
		t.Error("the bounce carries the body")
	}
	if tr := d.Drop(m, accepted, "no", false); tr.Notice.HeadersOnly {
		t.Error("nothing was demanded, and yet the body of a drop is kept back")
	}
	if tr := d.Drop(m, accepted, "no", true); !tr.Notice.HeadersOnly {
		t.Error("the report of a drop carries the body")
	}
	d.History.Since = accepted
	if tr := d.Drop(m, accepted, "no", false); !tr.Notice.HeadersOnly {
		t.Error("the report of a drop carries the body")
	}
}

func TestStepSettlesRecipientsApart(t *testing.T) {
	m := testMessage()
	d := testDelivery(m, policy.ClassOpportunistic, 0, 0, 0)
	first := d.Step(m, Result{Outcomes: []Outcome{took, failed(tempfail), failed(permfail)}}, accepted, schedule)
	if first.Done || len(first.Events) != 3 || len(first.After.Waiting()) != 1 {
		t.Fatalf("%+v", first)
	}
	again := first.After
	again.Attempts++
	second := again.Step(m, Result{Outcomes: []Outcome{took}}, accepted.Add(time.Hour), schedule)
	if !second.Done || len(second.Events) != 1 || second.Events[0].Recipient != 1 {
		t.Fatalf("%+v", second)
	}
}

func TestNobodyIsToldOfAReport(t *testing.T) {
	m := testMessage()
	m.From, m.Report = Address{}, true
	tr := testDelivery(m, policy.ClassOpportunistic, 0).Step(m, Result{Outcomes: []Outcome{failed(permfail)}}, accepted, schedule)
	if tr.Notice != nil || len(tr.Blocks) != 0 || tr.Events[0].Account != "" {
		t.Errorf("%+v", tr)
	}
}

// The last attempt is made when the lifetime ends, not a whole delay later.
func TestLastAttemptAtTheEndOfTheLifetime(t *testing.T) {
	m := testMessage()
	d := testDelivery(m, policy.ClassOpportunistic, 0)
	d.Attempts = 40
	tr := d.Step(m, Result{Outcomes: []Outcome{failed(tempfail)}}, accepted.Add(71*time.Hour), schedule)
	if want := accepted.Add(72 * time.Hour); !tr.After.Due.Equal(want) {
		t.Errorf("due %v, want %v", tr.After.Due, want)
	}
}

func TestDelaysGrowByHalf(t *testing.T) {
	for attempts, want := range map[int]time.Duration{
		1: 5 * time.Minute, 2: 7*time.Minute + 30*time.Second, 3: 11*time.Minute + 15*time.Second, 100: 4 * time.Hour, 1 << 30: 4 * time.Hour,
	} {
		if got := schedule.Delay(attempts); got != want {
			t.Errorf("after %d attempts: %v, want %v", attempts, got, want)
		}
	}
}

func TestDropTellsEveryWaitingRecipient(t *testing.T) {
	m := testMessage()
	d := testDelivery(m, policy.ClassOpportunistic, 0, NotifyNever)
	tr := d.Drop(m, accepted, "dropped by the operator", false)
	if !tr.Done || len(tr.Events) != 2 || len(tr.Blocks) != 2 || len(tr.Notice.Recipients) != 1 ||
		tr.Events[0].Reply != "dropped by the operator" || tr.After.Recipients[1].State != Dropped {
		t.Errorf("%+v", tr)
	}
}

func TestSplitByDestination(t *testing.T) {
	m := testMessage()
	var rcpts []Recipient
	for i, a := range []string{"a@one.test", "b@two.test", "c@ONE.test", "d@[192.0.2.1]"} {
		rcpts = append(rcpts, Recipient{Address: mustAddress(a), Index: i})
	}
	ds := Split(m, rcpts, func(dest string) policy.Class { return policy.ClassOpportunistic })
	if len(ds) != 3 || ds[0].Lane.Destination != "one.test" || len(ds[0].Recipients) != 2 ||
		ds[2].Lane.Destination != "[192.0.2.1]" || ds[2].Key.Number != 2 {
		t.Errorf("%+v", ds)
	}
}

func TestMessageIDsSortByAge(t *testing.T) {
	a, b := NewMessageID(accepted), NewMessageID(accepted.Add(time.Millisecond))
	if string(a[:]) >= string(b[:]) || !a.Time().Equal(accepted) {
		t.Errorf("%s at %v, %s", a, a.Time(), b)
	}
	back, err := ParseMessageID(a.String())
	if err != nil || back != a || len(a.String()) != 22 {
		t.Errorf("%v %v", back, err)
	}
}
